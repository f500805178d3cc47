-- People sign in to the console; each is a principal like an API key.
CREATE TABLE people (
    id          uuid PRIMARY KEY,
    email       text NOT NULL CHECK (email = lower(email) AND length(email) BETWEEN 3 AND 254),
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    roles       text[] NOT NULL CHECK (roles <@ ARRAY['sales_ops', 'operator', 'security_admin',
                                                      'auditor', 'app']
                                       AND cardinality(roles) > 0),
    -- An argon2id verifier; NULL: signs in by a link or by the identity provider only.
    verifier    text CHECK (verifier LIKE '$argon2id$%'),
    -- What the identity provider calls the person, from the first time that it named them.
    subject     text UNIQUE,
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at timestamptz
);
CREATE UNIQUE INDEX people_email ON people (email);

-- Only the hash of a session's id is kept: who reads the catalog cannot take a session over.
CREATE TABLE sessions (
    id_hash      bytea PRIMARY KEY CHECK (length(id_hash) = 32),
    person_id    uuid NOT NULL REFERENCES people,
    csrf_token   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sessions_of_person ON sessions (person_id);
CREATE INDEX sessions_last_seen ON sessions (last_seen_at);

CREATE TABLE sign_in_links (
    token_hash bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    person_id  uuid NOT NULL REFERENCES people,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX sign_in_links_of_person ON sign_in_links (person_id);

-- A form that is sent twice is one request too, and people are no API keys.
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_key_id_fkey;

-- What needs attention is asked for on every look at the fleet.
CREATE INDEX operations_failed ON operations (finished_at) WHERE state = 'failed';
CREATE INDEX operations_of_server ON operations (server_id, kind, created_at DESC)
    WHERE tenant_id IS NULL;
CREATE INDEX backups_corrupt ON backups (created_at DESC) WHERE state = 'corrupt';
CREATE INDEX backup_turns_breached ON backup_turns (breached_at) WHERE breached_at IS NOT NULL;
CREATE INDEX drills_passed ON drills (finished_at, tenant_id) WHERE state = 'passed';
CREATE INDEX tenants_by_slug ON tenants (slug, id);
-- The audit log is searched by the beginning of who did it.
CREATE INDEX audit_events_of_actor ON audit_events (actor text_pattern_ops, seq DESC);
