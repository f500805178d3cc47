-- How many large objects there are, and a sum over the hashes of their pieces of 1 MiB. An empty one
-- has one empty piece. Each is opened to be measured (262144 is INV_READ) and closed at once.
SELECT count(DISTINCT oid) AS rows, coalesce(sum(hashint8extended(h, h)), 0) AS digest
  FROM (SELECT m.oid, hash_record_extended(ROW(m.oid, place, lo_get(m.oid, place, 1048576)), 0) AS h
          FROM pg_largeobject_metadata m
         CROSS JOIN LATERAL (SELECT lo_open(m.oid, 262144) AS opened OFFSET 0) AS o
         CROSS JOIN LATERAL (SELECT lo_lseek64(o.opened, 0, 2) AS size OFFSET 0) AS l
         CROSS JOIN LATERAL (SELECT l.size, lo_close(o.opened) AS closed OFFSET 0) AS c
         CROSS JOIN LATERAL generate_series(c.closed, greatest(c.size - 1, 0), 1048576) AS place
        OFFSET 0) AS s
