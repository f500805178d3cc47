-- Databases: one a tenant is moving into, and the one it has moved from, while it can go back.
ALTER TABLE databases DROP CONSTRAINT databases_purpose_check;
ALTER TABLE databases ADD CONSTRAINT databases_purpose_check CHECK (purpose IN
    ('preparing', 'pooled', 'primary', 'scratch', 'previous', 'moving', 'moved_from',
     'condemned'));
ALTER TABLE databases DROP CONSTRAINT databases_of_a_tenant;
ALTER TABLE databases ADD CONSTRAINT databases_of_a_tenant CHECK
    (purpose NOT IN ('scratch', 'previous', 'moving', 'moved_from') OR tenant_id IS NOT NULL);
ALTER TABLE databases DROP CONSTRAINT databases_place;
ALTER TABLE databases ADD CONSTRAINT databases_place CHECK
    (NOT holds_place OR purpose IN ('scratch', 'previous', 'moving', 'moved_from'));
CREATE UNIQUE INDEX databases_one_moving ON databases (tenant_id)
    WHERE purpose IN ('moving', 'moved_from');

-- Which clients a pause holds: those of both endpoints, once they left by themselves; only those of
-- the session endpoint; or all, and the session endpoint's lose their connections.
ALTER TABLE routes ADD COLUMN pause_scope text
    CHECK (pause_scope IN ('all', 'sessions', 'cut'));

CREATE TABLE moves (
    -- That of the operation that began it.
    id                 uuid PRIMARY KEY REFERENCES operations,
    tenant_id          uuid NOT NULL REFERENCES tenants,
    state              text NOT NULL DEFAULT 'moving' CHECK (state IN
                         ('moving', 'switched', 'reversible', 'reversed', 'finished', 'abandoned')),
    method             text CHECK (method IN ('online', 'offline')),
    -- Databases are forgotten when they are dropped; a move is not.
    source_database_id uuid NOT NULL,
    target_database_id uuid NOT NULL,
    source_server_id   uuid NOT NULL REFERENCES servers,
    target_server_id   uuid NOT NULL REFERENCES servers,
    pause_budget_ms    integer NOT NULL CHECK (pause_budget_ms BETWEEN 100 AND 60000),
    -- Tables whose changed rows are told as a whole while the move lasts, because they have no key.
    keyless            text[] NOT NULL DEFAULT '{}',
    copied             jsonb,
    -- What every table held on both sides before the switch, and at it.
    compared           jsonb,
    compared_at_switch jsonb,
    attempts           integer NOT NULL DEFAULT 0,
    put_off            text,
    -- At the switch: the WAL position of the fenced sender; that of the receiver, from which its
    -- own changes count; and a snapshot there that a session of the worker keeps.
    fence_lsn          text,
    begin_lsn          text,
    snapshot           text,
    paused_ms          double precision,
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    switched_at        timestamptz,
    ended_at           timestamptz,
    CHECK ((ended_at IS NULL) = (state IN ('moving', 'switched', 'reversible'))),
    CHECK (state NOT IN ('switched', 'reversible', 'reversed', 'finished')
           OR switched_at IS NOT NULL),
    CHECK (source_server_id <> target_server_id)
);
CREATE UNIQUE INDEX moves_one_open ON moves (tenant_id)
    WHERE state IN ('moving', 'switched', 'reversible');
CREATE INDEX moves_of_tenant ON moves (tenant_id, created_at DESC);

-- Servers that are emptied by moving their tenants away, a few at a time.
CREATE TABLE drains (
    server_id   uuid PRIMARY KEY REFERENCES servers,
    at_once     integer NOT NULL CHECK (at_once BETWEEN 1 AND 32),
    started_by  text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Why the tenants that are left do not move.
    problem     text
);
