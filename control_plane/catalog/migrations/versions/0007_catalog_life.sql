-- Where this catalog was accepted: in which cluster, in which of its databases. A copy that was
-- restored from a backup is somewhere else, and nobody works on it until an operator accepts it.
-- A standby that was promoted is where its primary was.
CREATE TABLE catalog_place (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    system_identifier bigint NOT NULL,
    database_oid      oid NOT NULL,
    accepted_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted_by       text NOT NULL,
    -- Code that knows this migration can work on this catalog, however new that is. A migration
    -- that takes something away (contract) says here what code does without it.
    needs_code        text NOT NULL DEFAULT '0005'
);
INSERT INTO catalog_place (system_identifier, database_oid, accepted_by)
    SELECT c.system_identifier, d.oid, 'system'
    FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();

CREATE FUNCTION catalog_is_accepted() RETURNS boolean LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM catalog_place p, pg_control_system() c, pg_database d
    WHERE d.datname = current_database() AND p.database_oid = d.oid
      AND p.system_identifier = c.system_identifier);

-- The backups of the catalog itself that were made; what is in the store is what counts.
CREATE TABLE catalog_backups (
    id           uuid PRIMARY KEY,
    snapshot_at  timestamptz NOT NULL,
    finished_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    stored_bytes bigint NOT NULL
);
CREATE INDEX catalog_backups_newest ON catalog_backups (snapshot_at DESC);
