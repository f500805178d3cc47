-- A restore takes a tenant's audit log back to an earlier block, and seals go on from there: a new
-- line of seals begins. What was anchored after that block stays for good, on the line before,
-- and counts again when the restore is undone. A tenant's first line has the tenant's own id, and
-- its seals are in audit_seals.
CREATE TABLE audit_lines (
    id         uuid PRIMARY KEY, -- of the restored database
    tenant_id  uuid NOT NULL REFERENCES tenants,
    parent_id  uuid NOT NULL,
    from_block bigint NOT NULL CHECK (from_block >= 0),
    began_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER audit_lines_append_only BEFORE UPDATE OR DELETE ON audit_lines
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_lines_never_truncated BEFORE TRUNCATE ON audit_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE audit_line_seals (
    line       uuid NOT NULL REFERENCES audit_lines,
    block      bigint NOT NULL CHECK (block > 0),
    first_seq  bigint NOT NULL,
    last_seq   bigint NOT NULL,
    rows       integer NOT NULL CHECK (rows > 0),
    block_hash bytea NOT NULL CHECK (octet_length(block_hash) = 32),
    sealed_at  timestamptz NOT NULL,
    PRIMARY KEY (line, block)
);
CREATE TRIGGER audit_line_seals_append_only BEFORE UPDATE OR DELETE ON audit_line_seals
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_line_seals_never_truncated BEFORE TRUNCATE ON audit_line_seals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The line that seals of the tenant's database go on; nothing is the first one.
ALTER TABLE tenants ADD COLUMN audit_line uuid;
-- Of a restored database that waits, and of one that was replaced: the line it goes on.
ALTER TABLE databases ADD COLUMN audit_line uuid;

CREATE VIEW audit_anchors AS
    SELECT tenant_id AS line, block, first_seq, last_seq, rows, block_hash, sealed_at
    FROM audit_seals
    UNION ALL
    SELECT line, block, first_seq, last_seq, rows, block_hash, sealed_at FROM audit_line_seals;

-- The lines that a tenant's chain consists of, and the last block of each that belongs to it.
CREATE FUNCTION audit_lineage(tenant uuid) RETURNS TABLE (line uuid, until bigint)
LANGUAGE sql STABLE AS $body$
    WITH RECURSIVE lineage AS (
        SELECT coalesce(t.audit_line, t.id) AS line, 9223372036854775807 AS until
        FROM tenants t WHERE t.id = tenant
        UNION ALL
        SELECT l.parent_id, least(l.from_block, g.until)
        FROM lineage g JOIN audit_lines l ON l.id = g.line)
    SELECT g.line, g.until FROM lineage g
$body$;
