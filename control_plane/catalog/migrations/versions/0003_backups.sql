-- Databases: those a backup is restored into, and those that an in-place restore has replaced.
ALTER TABLE databases DROP CONSTRAINT databases_purpose_check;
ALTER TABLE databases ADD CONSTRAINT databases_purpose_check CHECK (purpose IN
    ('preparing', 'pooled', 'primary', 'scratch', 'previous', 'condemned'));
ALTER TABLE databases
    -- The backup it was restored from.
    ADD COLUMN backup_id   uuid,
    -- A replaced database can be taken back until then.
    ADD COLUMN kept_until  timestamptz,
    -- One that is about to become a tenant's primary has its place on the server already.
    ADD COLUMN holds_place boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT databases_of_a_tenant
        CHECK (purpose NOT IN ('scratch', 'previous') OR tenant_id IS NOT NULL),
    ADD CONSTRAINT databases_kept CHECK ((purpose = 'previous') = (kept_until IS NOT NULL)),
    ADD CONSTRAINT databases_place CHECK (NOT holds_place OR purpose IN ('scratch', 'previous'));
CREATE UNIQUE INDEX databases_one_previous ON databases (tenant_id) WHERE purpose = 'previous';

ALTER TABLE tenants
    ADD COLUMN legal_hold       text CHECK (length(legal_hold) BETWEEN 1 AND 500),
    ADD COLUMN legal_hold_by    text,
    ADD COLUMN legal_hold_at    timestamptz,
    -- The backup an archived tenant consists of.
    ADD COLUMN archive_backup_id uuid,
    -- state = 'deleting': when the database is dropped, and when backups and keys are destroyed.
    ADD COLUMN delete_after     timestamptz,
    ADD COLUMN shred_after      timestamptz,
    ADD COLUMN keep_backups_days integer NOT NULL DEFAULT 0 CHECK (keep_backups_days >= 0),
    ADD COLUMN final_backup     boolean NOT NULL DEFAULT true,
    -- The state an undelete brings it back to.
    ADD COLUMN deleting_from    text CHECK (deleting_from IN ('active', 'suspended', 'archived')),
    ADD CONSTRAINT tenants_deleting_from
        CHECK (state <> 'deleting' OR deleting_from IS NOT NULL),
    ADD CONSTRAINT tenants_archived
        CHECK (state <> 'archived' OR archive_backup_id IS NOT NULL),
    ADD CONSTRAINT tenants_legal_hold
        CHECK ((legal_hold IS NULL) = (legal_hold_at IS NULL)),
    ADD CONSTRAINT tenants_delete_after
        CHECK (state <> 'deleting' OR delete_after IS NOT NULL OR shred_after IS NOT NULL);

CREATE TABLE backups (
    id              uuid PRIMARY KEY,
    tenant_id       uuid NOT NULL REFERENCES tenants,
    operation_id    uuid REFERENCES operations,
    server_id       uuid NOT NULL REFERENCES servers,
    cause           text NOT NULL CHECK (cause IN ('manual', 'schedule', 'archive', 'final')),
    -- The slot of the schedule this backup is for.
    slot_at         timestamptz,
    state           text NOT NULL DEFAULT 'running' CHECK (state IN
                      ('running', 'complete', 'failed', 'corrupt', 'pruned')),
    key_version     integer,
    object_key      text,
    manifest_key    text,
    -- Of the stored (compressed, encrypted) object; plain_bytes are those of the dump inside.
    stored_bytes    bigint CHECK (stored_bytes > 0),
    plain_bytes     bigint CHECK (plain_bytes > 0),
    sha256          bytea CHECK (octet_length(sha256) = 32),
    tables          integer,
    rows            bigint,
    template        text,
    schema_revision text,
    server_version  integer,
    -- The instant whose data the backup holds.
    snapshot_at     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz,
    -- An archived tenant consists of this one: never pruned.
    pinned          boolean NOT NULL DEFAULT false,
    -- The end of the newest drill that restored it and found everything equal.
    verified_at     timestamptz,
    -- When its objects were deleted.
    pruned_at       timestamptz,
    problem         text,
    CHECK ((finished_at IS NULL) = (state = 'running')),
    CHECK (state NOT IN ('complete', 'corrupt', 'pruned') OR (object_key IS NOT NULL
        AND manifest_key IS NOT NULL AND stored_bytes IS NOT NULL AND sha256 IS NOT NULL
        AND key_version IS NOT NULL AND snapshot_at IS NOT NULL)),
    CHECK (state NOT IN ('failed', 'corrupt') OR problem IS NOT NULL)
);
CREATE INDEX backups_of_tenant ON backups (tenant_id, created_at DESC, id DESC);
CREATE INDEX backups_page ON backups (created_at DESC, id DESC);
CREATE INDEX backups_complete ON backups (tenant_id, snapshot_at DESC) WHERE state = 'complete';
CREATE UNIQUE INDEX backups_one_per_slot ON backups (tenant_id, slot_at)
    WHERE slot_at IS NOT NULL AND state <> 'failed';
CREATE UNIQUE INDEX backups_of_operation ON backups (operation_id);
CREATE INDEX backups_failed ON backups (finished_at) WHERE state = 'failed';

-- The ledger: each time a backup was restored and compared.
CREATE TABLE drills (
    id               uuid PRIMARY KEY,
    backup_id        uuid NOT NULL REFERENCES backups,
    tenant_id        uuid NOT NULL REFERENCES tenants,
    operation_id     uuid REFERENCES operations,
    server_id        uuid NOT NULL REFERENCES servers,
    cause            text NOT NULL CHECK (cause IN
                       ('manual', 'rotation', 'archive', 'restore', 'unarchive')),
    state            text NOT NULL CHECK (state IN ('passed', 'failed')),
    started_at       timestamptz NOT NULL,
    finished_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Seconds each part took; what they sum up to is the measured RTO.
    download_seconds double precision,
    load_seconds     double precision,
    compare_seconds  double precision,
    tables           integer,
    rows             bigint,
    -- SHA-256 (hex) over the content hashes of all tables.
    content_hash     text CHECK (content_hash ~ '^[0-9a-f]{64}$'),
    server_version   integer NOT NULL,
    problem          text,
    CHECK ((state = 'failed') = (problem IS NOT NULL))
);
CREATE INDEX drills_of_backup ON drills (backup_id, finished_at DESC);
CREATE INDEX drills_of_tenant ON drills (tenant_id, finished_at DESC);
CREATE INDEX drills_page ON drills (finished_at DESC, id DESC);
CREATE UNIQUE INDEX drills_of_operation ON drills (operation_id);
CREATE TRIGGER drills_append_only BEFORE UPDATE OR DELETE ON drills
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER drills_never_truncated BEFORE TRUNCATE ON drills
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- When and how long: for a tier, and for a tenant that differs from it.
CREATE TABLE backup_policies (
    tier            text PRIMARY KEY CHECK (tier IN ('standard', 'enterprise', 'dedicated')),
    cron            text NOT NULL,
    timezone        text NOT NULL DEFAULT 'UTC',
    jitter_minutes  integer NOT NULL DEFAULT 60 CHECK (jitter_minutes BETWEEN 0 AND 1440),
    rpo_minutes     integer NOT NULL CHECK (rpo_minutes > 0),
    drill_days      integer NOT NULL DEFAULT 30 CHECK (drill_days > 0),
    keep_last       integer NOT NULL DEFAULT 3 CHECK (keep_last >= 1),
    keep_daily      integer NOT NULL DEFAULT 7 CHECK (keep_daily >= 0),
    keep_weekly     integer NOT NULL DEFAULT 5 CHECK (keep_weekly >= 0),
    keep_monthly    integer NOT NULL DEFAULT 12 CHECK (keep_monthly >= 0),
    keep_yearly     integer NOT NULL DEFAULT 0 CHECK (keep_yearly >= 0),
    changed_by      text NOT NULL DEFAULT 'system',
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO backup_policies (tier, cron, jitter_minutes, rpo_minutes, drill_days) VALUES
    ('standard', '0 2 * * *', 120, 1800, 30),
    ('enterprise', '0 */6 * * *', 60, 480, 14),
    ('dedicated', '0 */4 * * *', 30, 330, 7);
CREATE TABLE backup_schedules (
    tenant_id       uuid PRIMARY KEY REFERENCES tenants,
    cron            text NOT NULL,
    timezone        text NOT NULL,
    jitter_minutes  integer NOT NULL CHECK (jitter_minutes BETWEEN 0 AND 1440),
    rpo_minutes     integer NOT NULL CHECK (rpo_minutes > 0),
    drill_days      integer NOT NULL CHECK (drill_days > 0),
    keep_last       integer NOT NULL CHECK (keep_last >= 1),
    keep_daily      integer NOT NULL CHECK (keep_daily >= 0),
    keep_weekly     integer NOT NULL CHECK (keep_weekly >= 0),
    keep_monthly    integer NOT NULL CHECK (keep_monthly >= 0),
    keep_yearly     integer NOT NULL CHECK (keep_yearly >= 0),
    changed_by      text NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Whose turn it is: one row per tenant that is backed up by schedule.
CREATE TABLE backup_turns (
    tenant_id       uuid PRIMARY KEY REFERENCES tenants,
    slot_at         timestamptz NOT NULL,
    due_at          timestamptz NOT NULL,
    -- When the present breach of the RPO was noticed and told.
    breached_at     timestamptz,
    -- A drill that failed or could not run is tried again after this.
    drill_after     timestamptz
);
CREATE INDEX backup_turns_due ON backup_turns (due_at);
-- One row: who holds it plans, and when that was done last.
CREATE TABLE backup_planning (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    planned_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO backup_planning DEFAULT VALUES;

CREATE TABLE exports (
    id           uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenants,
    operation_id uuid NOT NULL UNIQUE REFERENCES operations,
    state        text NOT NULL DEFAULT 'running' CHECK (state IN
                   ('running', 'ready', 'failed', 'deleted')),
    -- The age recipient the bundle is encrypted to.
    recipient    text NOT NULL,
    object_key   text,
    stored_bytes bigint,
    sha256       bytea CHECK (octet_length(sha256) = 32),
    tables       integer,
    rows         bigint,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    -- The object is deleted then.
    expires_at   timestamptz NOT NULL,
    -- When whatever was in the store of it was deleted.
    deleted_at   timestamptz,
    problem      text,
    CHECK (state NOT IN ('ready', 'deleted') OR (object_key IS NOT NULL
        AND stored_bytes IS NOT NULL AND sha256 IS NOT NULL)),
    CHECK ((finished_at IS NULL) = (state = 'running')),
    CHECK (state <> 'deleted' OR deleted_at IS NOT NULL)
);
CREATE INDEX exports_of_tenant ON exports (tenant_id, created_at DESC, id DESC);
CREATE INDEX exports_expiring ON exports (expires_at)
    WHERE deleted_at IS NULL AND state IN ('ready', 'failed');

-- What certificates and the manifests of exports are signed with; the private half is sealed.
CREATE TABLE signing_keys (
    id         uuid PRIMARY KEY,
    public_key bytea NOT NULL UNIQUE CHECK (octet_length(public_key) = 32),
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What was destroyed of a tenant, what could not be reached and until when; signed.
CREATE TABLE certificates (
    id         uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL UNIQUE REFERENCES tenants,
    issued_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    document   jsonb NOT NULL,
    signature  bytea NOT NULL,
    public_key bytea NOT NULL
);
CREATE TRIGGER certificates_append_only BEFORE UPDATE OR DELETE ON certificates
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER certificates_never_truncated BEFORE TRUNCATE ON certificates
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The keys themselves are in the keystore, apart from the catalog. sealed is only what an older
-- version left here; it moves to the keystore at the key's next use.
ALTER TABLE tenant_keys ALTER COLUMN sealed DROP NOT NULL;
-- A version is 'next' from before its key is made until the key is known to be kept: a number is
-- used by one attempt and never again, so that a late write of a dead one overwrites nothing.
ALTER TABLE tenant_keys DROP CONSTRAINT tenant_keys_state_check;
ALTER TABLE tenant_keys ADD CONSTRAINT tenant_keys_state_check
    CHECK (state IN ('next', 'active', 'retired', 'destroyed'));
ALTER TABLE tenant_keys ADD COLUMN destroyed_at timestamptz,
    ADD CONSTRAINT tenant_keys_destroyed CHECK ((state = 'destroyed') = (destroyed_at IS NOT NULL)),
    ADD CONSTRAINT tenant_keys_gone CHECK (state <> 'destroyed' OR sealed IS NULL);
CREATE UNIQUE INDEX operations_one_live_rekey ON operations (kind)
    WHERE kind = 'rekey' AND state IN ('pending', 'running', 'waiting', 'cancelling');

CREATE OR REPLACE FUNCTION refuse_illegal_tenant_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state IS DISTINCT FROM OLD.state AND (OLD.state, NEW.state) NOT IN (
        ('provisioning', 'active'), ('provisioning', 'deleted'),
        ('active', 'suspended'), ('suspended', 'active'),
        ('active', 'archived'), ('suspended', 'archived'), ('archived', 'active'),
        ('active', 'deleting'), ('suspended', 'deleting'), ('archived', 'deleting'),
        ('deleting', 'active'), ('deleting', 'suspended'), ('deleting', 'archived'),
        ('deleting', 'deleted')
    ) THEN
        RAISE EXCEPTION 'tenant %: % -> % is no legal change', OLD.slug, OLD.state, NEW.state
            USING ERRCODE = '23514', CONSTRAINT = 'tenants_legal_change';
    END IF;
    IF NEW.id <> OLD.id OR NEW.cell_id <> OLD.cell_id THEN
        RAISE EXCEPTION 'tenant %: id and cell are for life', OLD.slug
            USING ERRCODE = '23514', CONSTRAINT = 'tenants_for_life';
    END IF;
    IF NEW.legal_hold IS NOT NULL AND NEW.state = 'deleted' THEN
        RAISE EXCEPTION 'tenant %: is under legal hold', OLD.slug
            USING ERRCODE = '23514', CONSTRAINT = 'tenants_held';
    END IF;
    RETURN NEW;
END $$;
