-- Which template a tenant's database is made from.
ALTER TABLE tenants ADD COLUMN template text NOT NULL DEFAULT 'clinic'
    CHECK (template ~ '^[a-z][a-z0-9-]{0,38}[a-z0-9]$');
ALTER TABLE templates ADD COLUMN template text NOT NULL DEFAULT 'clinic'
    CHECK (template ~ '^[a-z][a-z0-9-]{0,38}[a-z0-9]$');
CREATE INDEX templates_newest ON templates (server_id, template, ready_at DESC);

-- What a schema is, by its fingerprint: SHA-256 of the definition in canonical form, in hex.
CREATE TABLE schemas (
    fingerprint text PRIMARY KEY CHECK (fingerprint ~ '^[0-9a-f]{64}$'),
    definition  jsonb NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What a revision of a template makes, as the template's own build showed it. The definition may
-- differ between major versions of Postgres.
CREATE TABLE golden_schemas (
    template    text NOT NULL,
    content     text NOT NULL CHECK (content ~ '^[0-9a-f]{16}$'),
    revision    text NOT NULL,
    major       integer NOT NULL,
    fingerprint text NOT NULL REFERENCES schemas,
    mark        text NOT NULL CHECK (mark ~ '^[0-9a-f]{64}$'),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (template, content, revision, major)
);

ALTER TABLE databases
    ADD COLUMN template           text NOT NULL DEFAULT 'clinic',
    -- What the database was found to be when it was last read; NULL until then.
    ADD COLUMN schema_fingerprint text REFERENCES schemas,
    ADD COLUMN schema_read_at     timestamptz,
    -- A revision that cannot run in a transaction has begun here and is not known to have ended.
    ADD COLUMN unfinished_revision text,
    -- Upkeep: seal the audit log, refresh materialized views.
    ADD COLUMN upkeep_due_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN upkeep_done_at     timestamptz,
    ADD COLUMN upkeep_problem     text;
CREATE INDEX databases_upkeep ON databases (upkeep_due_at) WHERE purpose = 'primary';
CREATE INDEX databases_revision ON databases (schema_revision) WHERE purpose = 'primary';

CREATE TABLE rollouts (
    id            uuid PRIMARY KEY,
    operation_id  uuid NOT NULL UNIQUE REFERENCES operations,
    template      text NOT NULL,
    content       text NOT NULL CHECK (content ~ '^[0-9a-f]{16}$'),
    to_revision   text NOT NULL,
    selector      jsonb NOT NULL DEFAULT '{}',
    -- canary, waves, max_parallel, per_server, halt_at, lock_wait_seconds
    options       jsonb NOT NULL,
    -- The compiled revisions, oldest first: what every tenant runs, whatever the files say later.
    script        jsonb NOT NULL,
    state         text NOT NULL DEFAULT 'running' CHECK (state IN
                    ('running', 'paused', 'halted', 'succeeded', 'incomplete', 'aborted')),
    wave          integer NOT NULL DEFAULT 0,
    reason        text,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    CHECK ((finished_at IS NULL) = (state IN ('running', 'paused', 'halted')))
);
CREATE INDEX rollouts_page ON rollouts (created_at DESC, id DESC);
-- Two rollouts of one template at once would race for the same tenants.
CREATE UNIQUE INDEX rollouts_one_live ON rollouts (template) WHERE finished_at IS NULL;

CREATE TABLE rollout_targets (
    rollout_id    uuid NOT NULL REFERENCES rollouts,
    tenant_id     uuid NOT NULL REFERENCES tenants,
    server_id     uuid NOT NULL REFERENCES servers,
    wave          integer NOT NULL CHECK (wave >= 0),
    position      integer NOT NULL,
    state         text NOT NULL DEFAULT 'waiting' CHECK (state IN
                    ('waiting', 'running', 'done', 'failed', 'skipped')),
    from_revision text,
    operation_id  uuid REFERENCES operations,
    attempts      integer NOT NULL DEFAULT 0,
    started_at    timestamptz,
    finished_at   timestamptz,
    error_code    text,
    error_message text,
    PRIMARY KEY (rollout_id, tenant_id),
    CHECK ((finished_at IS NULL) = (state IN ('waiting', 'running'))),
    CHECK (state <> 'running' OR operation_id IS NOT NULL)
);
CREATE INDEX rollout_targets_next ON rollout_targets (rollout_id, wave, position)
    WHERE state = 'waiting';
CREATE INDEX rollout_targets_running ON rollout_targets (operation_id) WHERE state = 'running';

-- Where a tenant's database could be taken back to: a named point in its server's WAL.
CREATE TABLE restore_points (
    id           uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenants,
    server_id    uuid NOT NULL REFERENCES servers,
    operation_id uuid REFERENCES operations,
    name         text NOT NULL,
    lsn          pg_lsn NOT NULL,
    revision     text,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX restore_points_of_tenant ON restore_points (tenant_id, created_at DESC);
CREATE UNIQUE INDEX restore_points_of_operation ON restore_points (operation_id);

-- The tenant's own key, sealed; field and blind-index keys are derived from it.
CREATE TABLE tenant_keys (
    tenant_id  uuid NOT NULL REFERENCES tenants,
    version    integer NOT NULL CHECK (version > 0),
    sealed     bytea NOT NULL,
    state      text NOT NULL CHECK (state IN ('active', 'retired')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, version)
);
CREATE UNIQUE INDEX tenant_keys_one_active ON tenant_keys (tenant_id) WHERE state = 'active';

-- What the audit log of a tenant's database had been sealed to, kept where its owner cannot reach.
CREATE TABLE audit_seals (
    tenant_id  uuid NOT NULL REFERENCES tenants,
    block      bigint NOT NULL CHECK (block > 0),
    first_seq  bigint NOT NULL,
    last_seq   bigint NOT NULL,
    rows       integer NOT NULL CHECK (rows > 0),
    block_hash bytea NOT NULL CHECK (octet_length(block_hash) = 32),
    sealed_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, block)
);
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE ON audit_seals
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_seals_never_truncated BEFORE TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
