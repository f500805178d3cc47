-- $1: the block that was anchored last, 0 when none was.
WITH era AS (
    SELECT era, floor_seq FROM audit.seal_era ORDER BY era DESC LIMIT 1
), newest AS (
    SELECT b.next_xid FROM audit.seal_block b JOIN era USING (era) ORDER BY b.block DESC LIMIT 1
)
SELECT (SELECT count(*) FROM audit.seal_block) AS blocks,
       (SELECT block_hash FROM audit.seal_block WHERE block = $1::bigint) AS anchored_hash,
       coalesce((SELECT extract(epoch FROM clock_timestamp() - min(l.at))
                   FROM audit.audit_log l
                  WHERE l.xid >= coalesce((SELECT next_xid FROM newest), '0')
                    AND l.seq > coalesce((SELECT floor_seq FROM era), 0)), 0)::float8 AS lag
