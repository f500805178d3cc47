CREATE TABLE cells (
    id          uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9-]{0,38}[a-z0-9]$'),
    version     bigint NOT NULL DEFAULT 0,
    tenants     integer NOT NULL DEFAULT 0,
    max_tenants integer NOT NULL DEFAULT 1000 CHECK (max_tenants > 0),
    CHECK (tenants BETWEEN 0 AND max_tenants)
);

CREATE TABLE servers (
    id                uuid PRIMARY KEY,
    name              text NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,38}[a-z0-9]$'),
    host              text NOT NULL,
    hostaddr          text NOT NULL,
    port              integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    admin_login       text NOT NULL,
    sealed_password   bytea NOT NULL,
    tls               text NOT NULL CHECK (tls IN ('disable', 'require', 'verify-full')),
    ca_pem            text,
    system_identifier bigint NOT NULL,
    version_num       integer NOT NULL,
    region            text,
    tier              text CHECK (tier IN ('standard', 'enterprise', 'dedicated')),
    labels            jsonb NOT NULL DEFAULT '{}',
    capacity          integer NOT NULL CHECK (capacity > 0),
    placed            integer NOT NULL DEFAULT 0,
    state             text NOT NULL CHECK (state IN ('enrolling', 'active', 'draining', 'removed')),
    preflight         jsonb NOT NULL DEFAULT '[]',
    reachable         boolean NOT NULL DEFAULT true,
    checked_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    problem           text,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (placed BETWEEN 0 AND capacity),
    CHECK (tls <> 'verify-full' OR ca_pem IS NOT NULL)
);
CREATE UNIQUE INDEX servers_name ON servers (name) WHERE state <> 'removed';
CREATE UNIQUE INDEX servers_identity ON servers (system_identifier) WHERE state <> 'removed';

CREATE TABLE templates (
    server_id   uuid NOT NULL REFERENCES servers,
    fingerprint text NOT NULL CHECK (fingerprint ~ '^[0-9a-f]{16}$'),
    revision    text NOT NULL,
    ready_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (server_id, fingerprint)
);

-- The roles of one tenant, existing before the tenant does when its database was made ahead.
CREATE TABLE role_sets (
    id         uuid PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE credentials (
    role_set_id uuid NOT NULL REFERENCES role_sets,
    slot        text NOT NULL CHECK (slot IN ('a', 'b')),
    version     integer NOT NULL CHECK (version > 0),
    sealed      bytea NOT NULL,
    verifier    text NOT NULL CHECK (verifier LIKE 'SCRAM-SHA-256$%'),
    state       text NOT NULL CHECK (state IN ('next', 'active', 'retiring', 'revoked')),
    retire_at   timestamptz,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (role_set_id, slot),
    CHECK ((state = 'retiring') = (retire_at IS NOT NULL))
);
CREATE UNIQUE INDEX credentials_one_active ON credentials (role_set_id) WHERE state = 'active';
CREATE INDEX credentials_retiring ON credentials (retire_at) WHERE state = 'retiring';

CREATE TABLE tenants (
    id               uuid PRIMARY KEY REFERENCES role_sets,
    slug             text NOT NULL CHECK (slug ~ '^[a-z][a-z0-9-]{1,38}[a-z0-9]$'),
    name             text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    tier             text NOT NULL CHECK (tier IN ('standard', 'enterprise', 'dedicated')),
    region           text,
    labels           jsonb NOT NULL DEFAULT '{}',
    state            text NOT NULL DEFAULT 'provisioning' CHECK (state IN
                       ('provisioning', 'active', 'suspended', 'archived', 'deleting', 'deleted')),
    cell_id          uuid NOT NULL REFERENCES cells,
    placement_reason text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    activated_at     timestamptz,
    CHECK (state IN ('provisioning', 'deleted') OR activated_at IS NOT NULL)
);
CREATE UNIQUE INDEX tenants_slug ON tenants (slug) WHERE state <> 'deleted';
CREATE INDEX tenants_page ON tenants (created_at, id);

CREATE TABLE databases (
    id                   uuid PRIMARY KEY,
    role_set_id          uuid NOT NULL REFERENCES role_sets,
    tenant_id            uuid REFERENCES tenants,
    server_id            uuid NOT NULL REFERENCES servers,
    name                 text NOT NULL CHECK (name ~ '^t_[0-9a-z]{26}$'),
    template_fingerprint text NOT NULL,
    schema_revision      text,
    generation           bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
    purpose              text NOT NULL CHECK (purpose IN
                           ('preparing', 'pooled', 'primary', 'condemned')),
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (purpose NOT IN ('preparing', 'pooled') OR tenant_id IS NULL),
    CHECK (purpose <> 'primary' OR tenant_id IS NOT NULL),
    CHECK (purpose NOT IN ('pooled') OR schema_revision IS NOT NULL),
    UNIQUE (server_id, name)
);
CREATE UNIQUE INDEX databases_one_primary ON databases (tenant_id) WHERE purpose = 'primary';
CREATE INDEX databases_pool ON databases (server_id, template_fingerprint, id)
    WHERE purpose = 'pooled';

CREATE TABLE poolers (
    id              uuid PRIMARY KEY,
    name            text NOT NULL UNIQUE,
    cell_id         uuid NOT NULL REFERENCES cells,
    host            text NOT NULL,
    port            integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    version         text,
    served_version  bigint NOT NULL DEFAULT -1,
    served_entries  integer NOT NULL DEFAULT 0,
    served_digest   text,
    problem         text,
    registered_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (host, port)
);

-- Intent: what every pooler of the cell shall serve. version is the cell's version at the
-- change, so that an agent asks only for what is newer than what it serves.
CREATE TABLE routes (
    tenant_id         uuid PRIMARY KEY REFERENCES tenants,
    cell_id           uuid NOT NULL REFERENCES cells,
    alias             text NOT NULL CHECK (alias ~ '^[a-z][a-z0-9-]{1,38}[a-z0-9]$'),
    database_id       uuid NOT NULL,
    state             text NOT NULL CHECK (state IN ('published', 'withdrawn')),
    pool_size         integer NOT NULL CHECK (pool_size > 0),
    session_pool_size integer NOT NULL CHECK (session_pool_size > 0),
    generation        bigint NOT NULL CHECK (generation > 0),
    version           bigint NOT NULL,
    endpoint_host     text NOT NULL,
    endpoint_port     integer NOT NULL CHECK (endpoint_port BETWEEN 1 AND 65535),
    paused_by         uuid,
    pause_epoch       integer,
    pause_until       timestamptz,
    CHECK ((paused_by IS NULL) = (pause_until IS NULL)),
    CHECK ((paused_by IS NULL) = (pause_epoch IS NULL))
);
CREATE UNIQUE INDEX routes_alias ON routes (cell_id, alias) WHERE state = 'published';
CREATE INDEX routes_version ON routes (cell_id, version);
CREATE INDEX routes_paused ON routes (pause_until) WHERE paused_by IS NOT NULL;

CREATE TABLE pause_acks (
    tenant_id    uuid NOT NULL REFERENCES routes ON DELETE CASCADE,
    pooler_id    uuid NOT NULL REFERENCES poolers ON DELETE CASCADE,
    operation_id uuid NOT NULL,
    epoch        integer NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, pooler_id)
);

CREATE TABLE operations (
    id            uuid PRIMARY KEY,
    kind          text NOT NULL,
    subject       text NOT NULL,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running',
                    'waiting', 'succeeded', 'failed', 'cancelling', 'cancelled')),
    queue         text NOT NULL CHECK (queue IN ('control', 'transfer')),
    tenant_id     uuid REFERENCES tenants,
    server_id     uuid REFERENCES servers,
    database_id   uuid,
    input         jsonb NOT NULL DEFAULT '{}',
    result        jsonb,
    actor         text NOT NULL,
    epoch         integer NOT NULL DEFAULT 0,
    lease_owner   text,
    lease_until   timestamptz,
    due_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline      timestamptz NOT NULL,
    alerted_at    timestamptz,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at    timestamptz,
    finished_at   timestamptz,
    error_code    text,
    error_message text,
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
    CHECK ((finished_at IS NULL) = (state NOT IN ('succeeded', 'failed', 'cancelled'))),
    CHECK (finished_at IS NULL OR lease_owner IS NULL),
    CHECK (state <> 'failed' OR error_code IS NOT NULL)
);
CREATE UNIQUE INDEX operations_one_live_per_tenant ON operations (tenant_id)
    WHERE state IN ('pending', 'running', 'waiting', 'cancelling');
CREATE UNIQUE INDEX operations_one_live_per_database ON operations (database_id)
    WHERE tenant_id IS NULL AND state IN ('pending', 'running', 'waiting', 'cancelling');
CREATE UNIQUE INDEX operations_one_live_enrolment ON operations (server_id)
    WHERE kind = 'enrol' AND state IN ('pending', 'running', 'waiting', 'cancelling');
CREATE INDEX operations_due ON operations (due_at)
    WHERE state IN ('pending', 'running', 'waiting', 'cancelling');
CREATE INDEX operations_page ON operations (created_at DESC, id DESC);
CREATE INDEX operations_of_tenant ON operations (tenant_id, created_at DESC, id DESC);

CREATE TABLE steps (
    operation_id  uuid NOT NULL REFERENCES operations,
    position      integer NOT NULL CHECK (position >= 0),
    name          text NOT NULL,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN
                    ('pending', 'running', 'done', 'skipped', 'failed')),
    attempts      integer NOT NULL DEFAULT 0,
    started_at    timestamptz,
    finished_at   timestamptz,
    detail        text,
    error_code    text,
    error_message text,
    PRIMARY KEY (operation_id, position),
    CHECK ((finished_at IS NULL) = (state IN ('pending', 'running')))
);

CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    lookup       text NOT NULL UNIQUE,
    secret_hash  bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    roles        text[] NOT NULL CHECK (cardinality(roles) > 0 AND roles <@ ARRAY[
                   'sales_ops', 'operator', 'security_admin', 'auditor', 'app', 'breakglass']),
    tenant_id    uuid REFERENCES tenants,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    CHECK (expires_at > created_at)
);
CREATE INDEX api_keys_page ON api_keys (created_at DESC, id DESC);

CREATE TABLE idempotency_keys (
    key_id       uuid NOT NULL REFERENCES api_keys,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    request_hash bytea NOT NULL,
    status       integer,
    body         jsonb,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (key_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

CREATE TABLE audit_events (
    seq            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor          text NOT NULL,
    key_id         uuid,
    action         text NOT NULL,
    outcome        text NOT NULL CHECK (outcome IN ('allowed', 'denied', 'failed')),
    subject        text NOT NULL,
    tenant_id      uuid,
    address        inet,
    correlation_id text,
    reason         text,
    facts          jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_events_of_tenant ON audit_events (tenant_id, seq DESC);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = '42501';
END $$;
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_events_never_truncated BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_append_only;
ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_never_truncated;

-- A tenant moves only along the arrows of its life.
CREATE FUNCTION refuse_illegal_tenant_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state IS DISTINCT FROM OLD.state AND (OLD.state, NEW.state) NOT IN (
        ('provisioning', 'active'), ('provisioning', 'deleted'),
        ('active', 'suspended'), ('suspended', 'active'),
        ('active', 'archived'), ('suspended', 'archived'), ('archived', 'active'),
        ('active', 'deleting'), ('suspended', 'deleting'), ('archived', 'deleting'),
        ('deleting', 'active'), ('deleting', 'suspended'), ('deleting', 'deleted')
    ) THEN
        RAISE EXCEPTION 'tenant %: % -> % is no legal change', OLD.slug, OLD.state, NEW.state
            USING ERRCODE = '23514', CONSTRAINT = 'tenants_legal_change';
    END IF;
    IF NEW.id <> OLD.id OR NEW.cell_id <> OLD.cell_id THEN
        RAISE EXCEPTION 'tenant %: id and cell are for life', OLD.slug
            USING ERRCODE = '23514', CONSTRAINT = 'tenants_for_life';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER tenants_legal_change BEFORE UPDATE ON tenants
    FOR EACH ROW EXECUTE FUNCTION refuse_illegal_tenant_change();
