-- Servers that a provider makes and deletes for us. The id is also that of the row in servers, which
-- comes once the server answers and goes before it is deleted; the password is here until then.
CREATE TABLE provided_servers (
    id              uuid PRIMARY KEY,
    name            text NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,38}[a-z0-9]$'),
    provider        text NOT NULL CHECK (provider IN ('local', 'rds', 'cnpg')),
    wish            jsonb NOT NULL,
    sealed_password bytea,
    state           text NOT NULL DEFAULT 'creating' CHECK (state IN
                      ('creating', 'ready', 'deleting', 'deleted')),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (sealed_password IS NOT NULL OR state <> 'creating'),
    CHECK (sealed_password IS NULL OR state <> 'deleted')
);
CREATE UNIQUE INDEX provided_servers_name ON provided_servers (name) WHERE state <> 'deleted';

-- One creation or deletion of a server at a time; input carries its id.
CREATE UNIQUE INDEX operations_one_live_per_provided_server ON operations ((input ->> 'provided'))
    WHERE kind IN ('create_server', 'delete_server')
      AND state IN ('pending', 'running', 'waiting', 'cancelling');
