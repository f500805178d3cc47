-- S-10: which tenant this database is, readable by its own application, written only by the
-- control plane. Owned by the role that owns databases, which nobody can become.
CREATE SCHEMA cp_meta AUTHORIZATION {database_owner};
CREATE TABLE cp_meta.identity (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    tenant_id uuid,
    generation bigint NOT NULL CHECK (generation >= 0),
    state text NOT NULL CHECK (state IN ('pooled', 'primary', 'previous', 'scratch')),
    system_identifier bigint NOT NULL,
    CHECK ((state = 'pooled') = (tenant_id IS NULL))
);
ALTER TABLE cp_meta.identity OWNER TO {database_owner};
GRANT USAGE ON SCHEMA cp_meta TO {template_owner}, {template_app}, {template_reader};
GRANT SELECT ON cp_meta.identity TO {template_owner}, {template_app}, {template_reader};

-- A large object belongs to whoever made it, no default privilege reaches it, and logical replication
-- does not carry it: a tenant that has one moves offline. Bytes belong in bytea columns. Only who
-- owns the server can see to that.
DO $body$ BEGIN
    IF pg_has_role((SELECT proowner FROM pg_proc
                     WHERE oid = 'pg_catalog.lo_create(oid)'::regprocedure), 'USAGE') THEN
        REVOKE EXECUTE ON FUNCTION pg_catalog.lo_creat(integer), pg_catalog.lo_create(oid),
            pg_catalog.lo_from_bytea(oid, bytea), pg_catalog.lo_import(text),
            pg_catalog.lo_import(text, oid) FROM PUBLIC;
    END IF;
END $body$;
