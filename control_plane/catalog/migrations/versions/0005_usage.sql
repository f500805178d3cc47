-- What was used: one row per tenant and minute in which it did anything, and roll-ups of those to
-- quarters of an hour and to days (UTC). A row of the server itself is the sum of all databases
-- there, tenants' and others. No foreign keys: samples come by the thousand, and nothing is decided
-- by a row that outlived its tenant.
CREATE TABLE usage (
    -- In minutes.
    grain                  smallint NOT NULL,
    subject_id             uuid NOT NULL,
    server_id              uuid NOT NULL,
    at                     timestamptz NOT NULL,
    -- How much of the time was looked at while the subject did anything; the server's row: all of it.
    seconds                real NOT NULL DEFAULT 0,
    -- Sums over the time.
    busy_ms                real NOT NULL DEFAULT 0,
    idle_in_transaction_ms real NOT NULL DEFAULT 0,
    sessions               bigint NOT NULL DEFAULT 0,
    commits                bigint NOT NULL DEFAULT 0,
    rollbacks              bigint NOT NULL DEFAULT 0,
    rows_read              bigint NOT NULL DEFAULT 0,
    rows_fetched           bigint NOT NULL DEFAULT 0,
    rows_written           bigint NOT NULL DEFAULT 0,
    temp_bytes             bigint NOT NULL DEFAULT 0,
    blocks_read            bigint NOT NULL DEFAULT 0,
    blocks_hit             bigint NOT NULL DEFAULT 0,
    deadlocks              bigint NOT NULL DEFAULT 0,
    pooled_transactions    bigint NOT NULL DEFAULT 0,
    pooled_queries         bigint NOT NULL DEFAULT 0,
    pooled_query_ms        real NOT NULL DEFAULT 0,
    pool_wait_ms           real NOT NULL DEFAULT 0,
    -- The most that was seen at once.
    connections            integer NOT NULL DEFAULT 0,
    running                integer NOT NULL DEFAULT 0,
    blocked                integer NOT NULL DEFAULT 0,
    pool_waiting           integer NOT NULL DEFAULT 0,
    pool_longest_wait_ms   real NOT NULL DEFAULT 0,
    PRIMARY KEY (grain, subject_id, at, server_id)
) PARTITION BY LIST (grain);
-- A minute is added to four times, in place.
CREATE TABLE usage_minutes PARTITION OF usage FOR VALUES IN (1) WITH (fillfactor = 60);
CREATE TABLE usage_quarters PARTITION OF usage FOR VALUES IN (15);
CREATE TABLE usage_days PARTITION OF usage FOR VALUES IN (1440);
CREATE INDEX usage_of_server ON usage (server_id, at);

-- Up to when a grain was made of the one below it.
CREATE TABLE usage_rollups (
    grain      smallint PRIMARY KEY CHECK (grain IN (15, 1440)),
    done_until timestamptz NOT NULL
);
INSERT INTO usage_rollups VALUES
    (15, date_bin('15 minutes', clock_timestamp(), '2000-01-01 00:00+00')),
    (1440, date_bin('1 day', clock_timestamp(), '2000-01-01 00:00+00'));

-- The newest round over each server: who makes it, and the counters the next one subtracts.
CREATE TABLE usage_rounds (
    server_id     uuid PRIMARY KEY REFERENCES servers,
    epoch         bigint NOT NULL,
    claimed_until timestamptz,
    taken_at      timestamptz,
    counters      bytea,
    databases     integer NOT NULL DEFAULT 0,
    took_ms       real NOT NULL DEFAULT 0,
    problem       text
);

ALTER TABLE databases ADD COLUMN size_bytes bigint;
ALTER TABLE databases ADD COLUMN sized_at timestamptz;
CREATE INDEX databases_sized ON databases (server_id, sized_at NULLS FIRST)
    WHERE purpose = 'primary';

-- Since when a worker looks after it, if one does.
ALTER TABLE databases ADD COLUMN upkeep_began_at timestamptz;
CREATE INDEX databases_tended ON databases (server_id) WHERE upkeep_began_at IS NOT NULL;

-- How often somebody else had to go on, because a worker lost its lease.
ALTER TABLE operations ADD COLUMN takeovers integer NOT NULL DEFAULT 0;

-- Tenants that use more than their neighbours can bear, and what that was told by.
CREATE TABLE disturbances (
    id         uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants,
    server_id  uuid NOT NULL REFERENCES servers,
    -- The first look that saw it, and the newest; announced once two in a row did.
    began_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    looks      integer NOT NULL DEFAULT 1,
    announced_at timestamptz,
    ended_at   timestamptz,
    level      text NOT NULL CHECK (level IN ('heavy', 'noisy')),
    verdict    text NOT NULL,
    evidence   jsonb NOT NULL,
    sufferers  jsonb NOT NULL
);
CREATE UNIQUE INDEX disturbances_one_open ON disturbances (tenant_id, server_id)
    WHERE ended_at IS NULL;
CREATE INDEX disturbances_of_tenant ON disturbances (tenant_id, began_at DESC);

-- Limits other than those of the tier; what is NULL is the tier's.
CREATE TABLE tenant_limits (
    tenant_id              uuid PRIMARY KEY REFERENCES tenants,
    pool_size              integer CHECK (pool_size BETWEEN 1 AND 10000),
    session_pool_size      integer CHECK (session_pool_size BETWEEN 1 AND 10000),
    connections            integer CHECK (connections BETWEEN 1 AND 10000),
    statement_timeout_ms   integer CHECK (statement_timeout_ms >= 0),
    idle_in_transaction_ms integer CHECK (idle_in_transaction_ms >= 0),
    set_by                 text NOT NULL,
    set_at                 timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason                 text
);
