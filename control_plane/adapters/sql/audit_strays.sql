-- Lines of the audit log that no block of seals holds: those whose turn will come, and those that
-- were written behind a seal that is closed.
WITH era AS (
    SELECT era, floor_seq FROM audit.seal_era ORDER BY era DESC LIMIT 1
), reached AS (
    SELECT coalesce((SELECT floor_seq FROM era), 0) AS floor_seq,
           coalesce((SELECT b.next_xid FROM audit.seal_block b JOIN era USING (era)
                      ORDER BY b.block DESC LIMIT 1), '0') AS next_xid,
           coalesce((SELECT max(last_seq) FROM audit.seal_block), 0) AS last_seq
), held AS MATERIALIZED (
    SELECT range_agg(part) AS seqs FROM audit.seal_block CROSS JOIN unnest(seqs) AS part
), line AS MATERIALIZED (
    SELECT l.seq, l.seq > r.floor_seq AND l.xid >= r.next_xid OR l.seq > r.last_seq AS waits
      FROM audit.audit_log l CROSS JOIN reached r CROSS JOIN held h
     WHERE h.seqs IS NULL OR NOT h.seqs @> l.seq
)
SELECT count(*) FILTER (WHERE waits) AS waiting,
       coalesce((array_agg(seq ORDER BY seq) FILTER (WHERE NOT waits))[1:20], '{}') AS unsealed
  FROM line
