-- $1 limit
SELECT id, queue
FROM operations
WHERE catalog_is_accepted()
  AND state IN ('pending', 'running', 'waiting', 'cancelling')
  AND due_at <= clock_timestamp()
  AND (lease_until IS NULL OR lease_until < clock_timestamp())
ORDER BY due_at
LIMIT $1
