SET LOCAL ROLE none;
CREATE SCHEMA audit AUTHORIZATION {auditor};
SET LOCAL ROLE {auditor};
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
GRANT USAGE ON SCHEMA audit TO {owner}, {app};

-- One line per row written or read. The relation is text: it says what the table was called at the
-- time, and survives a dump, a rename and a drop, which an oid does not.
CREATE TABLE audit.audit_log (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    actor text NOT NULL CHECK (actor <> ''),
    login text NOT NULL DEFAULT session_user,
    application_name text NOT NULL DEFAULT current_setting('application_name'),
    op "char" NOT NULL CHECK (op IN ('I', 'U', 'D', 'T', 'R')),
    rel text NOT NULL,
    pk text,
    diff jsonb,
    request_id text DEFAULT NULLIF(current_setting('app.request_id', true), ''),
    PRIMARY KEY (xid, seq, at)
) PARTITION BY RANGE (at);
CREATE INDEX audit_log_record ON audit.audit_log (rel, pk);
COMMENT ON COLUMN audit.audit_log.op IS
    'I insert, U update, D delete, T truncate (no pk), R read through an access function';
COMMENT ON COLUMN audit.audit_log.diff IS
    'the columns that changed, each {"old": …, "new": …}; ciphertext as it is stored';
COMMENT ON COLUMN audit.audit_log.actor IS
    'whom the application named; attribution, not authentication';

-- When upkeep is late, rows land here: a write never fails for want of a month.
CREATE TABLE audit.audit_log_default PARTITION OF audit.audit_log DEFAULT;

-- A log that was restored on, or moved to, another cluster has rows whose xid means nothing there.
CREATE TABLE audit.seal_era (
    era integer PRIMARY KEY,
    cluster bigint NOT NULL,
    -- Rows up to this one were sealed before the era began.
    floor_seq bigint NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE audit.seal_block (
    block bigint PRIMARY KEY,
    era integer NOT NULL REFERENCES audit.seal_era ON DELETE RESTRICT,
    seqs int8multirange NOT NULL,
    row_count integer NOT NULL CHECK (row_count > 0),
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    -- Where the rows are found: the range of their xids.
    first_xid xid8 NOT NULL,
    last_xid xid8 NOT NULL,
    -- Every row of the era with a lower xid is sealed.
    next_xid xid8 NOT NULL,
    prev_hash bytea NOT NULL CHECK (octet_length(prev_hash) = 32),
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    block_hash bytea NOT NULL CHECK (octet_length(block_hash) = 32),
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX seal_block_era ON audit.seal_block (era);

CREATE FUNCTION audit.deny() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RAISE EXCEPTION '%.% is append-only', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$body$;

-- ALWAYS: an ordinary trigger is skipped while session_replication_role is replica.
CREATE FUNCTION audit.make_append_only(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    made text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = 'deny_change') THEN
        EXECUTE format('CREATE TRIGGER deny_change BEFORE UPDATE OR DELETE ON %s '
                       'FOR EACH ROW EXECUTE FUNCTION audit.deny()', relation);
    END IF;
    EXECUTE format('CREATE TRIGGER deny_truncate BEFORE TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION audit.deny()', relation);
    FOREACH made IN ARRAY ARRAY['deny_change', 'deny_truncate'] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation, made);
    END LOOP;
END
$body$;
SELECT audit.make_append_only('audit.audit_log');
SELECT audit.make_append_only('audit.audit_log_default');
SELECT audit.make_append_only('audit.seal_era');
SELECT audit.make_append_only('audit.seal_block');

-- Months in UTC, this one and those to come; how many were made. A month whose rows are in the
-- default partition already stays there. ATTACH lets writers of the other months go on.
CREATE FUNCTION audit.ensure_partitions(months_ahead integer DEFAULT 3) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '2s' AS $body$
DECLARE
    made integer := 0;
    starts timestamptz;
    ends timestamptz;
    part text;
BEGIN
    FOR starts, ends IN
        SELECT m, m + interval '1 month'
          FROM generate_series(date_trunc('month', now()),
                               date_trunc('month', now()) + make_interval(months => months_ahead),
                               interval '1 month') AS m
    LOOP
        part := 'audit_log_' || to_char(starts, 'YYYY_MM');
        CONTINUE WHEN to_regclass('audit.' || part) IS NOT NULL;
        CONTINUE WHEN EXISTS (SELECT FROM audit.audit_log_default WHERE at >= starts AND at < ends);
        EXECUTE format('CREATE TABLE audit.%I (LIKE audit.audit_log INCLUDING CONSTRAINTS)', part);
        EXECUTE format('ALTER TABLE audit.audit_log ATTACH PARTITION audit.%I '
                       'FOR VALUES FROM (%L) TO (%L)', part, starts, ends);
        PERFORM audit.make_append_only(CAST('audit.' || quote_ident(part) AS regclass));
        made := made + 1;
    END LOOP;
    RETURN made;
END
$body$;
SELECT audit.ensure_partitions();

-- Who acts. An application's login must name its user inside the transaction; any other login is
-- taken for itself, whatever it says.
CREATE FUNCTION audit.acting() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    named text := NULLIF(current_setting('app.user_id', true), '');
BEGIN
    IF session_user !~ '_app_[ab]$' THEN
        RETURN session_user;
    END IF;
    IF named IS NULL THEN
        RAISE EXCEPTION 'nobody is named as the acting user; say first, in the same transaction: '
                        'SELECT set_config(''app.user_id'', <user>, true)'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN named;
END
$body$;

-- Arguments: the columns of the primary key. Not ENABLE ALWAYS where it is attached: on the target
-- of a logical replication every row would be logged twice.
CREATE FUNCTION audit.capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    before jsonb := CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END;
    after jsonb := CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN to_jsonb(NEW) END;
    changes jsonb;
    key text;
BEGIN
    IF TG_NARGS = 1 THEN
        key := coalesce(after, before) ->> TG_ARGV[0];
    ELSE
        SELECT string_agg(coalesce(after, before) ->> named.part, ',' ORDER BY named.place) INTO key
          FROM unnest(TG_ARGV) WITH ORDINALITY AS named (part, place);
    END IF;
    IF TG_OP = 'UPDATE' THEN
        SELECT jsonb_object_agg(c.part, jsonb_build_object('old', before -> c.part, 'new', c.value))
          INTO changes FROM jsonb_each(after) AS c (part, value)
         WHERE c.value IS DISTINCT FROM before -> c.part;
    ELSIF TG_OP <> 'TRUNCATE' THEN
        SELECT jsonb_object_agg(c.part, jsonb_build_object(
                   CASE TG_OP WHEN 'INSERT' THEN 'new' ELSE 'old' END, c.value))
          INTO changes FROM jsonb_each(coalesce(after, before)) AS c (part, value)
         WHERE c.value <> 'null';
    END IF;
    INSERT INTO audit.audit_log (actor, op, rel, pk, diff)
    VALUES (audit.acting(), left(TG_OP, 1), TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, key, changes);
    RETURN NULL;
END
$body$;
GRANT EXECUTE ON FUNCTION audit.capture() TO {owner};

-- A record that is about to be shown. The message is written at once and outlives a rollback,
-- which takes the row away; it is read back from the WAL (pg_waldump --rmgr=LogicalMessage).
CREATE FUNCTION audit.note_read(relation text, record text, facts jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    reader text := audit.acting();
BEGIN
    PERFORM pg_logical_emit_message(false, 'audit', CAST(jsonb_build_object(
        'at', clock_timestamp(), 'actor', reader, 'login', session_user,
        'op', 'R', 'rel', relation, 'pk', record, 'facts', facts) AS text));
    INSERT INTO audit.audit_log (actor, op, rel, pk, diff)
    VALUES (reader, 'R', relation, record, facts);
END
$body$;
GRANT EXECUTE ON FUNCTION audit.note_read(text, text, jsonb) TO {owner};

-- What happened to one record, oldest first. To ask is a read of that record, and is logged.
CREATE FUNCTION audit.history(schema_name text, table_name text, id text)
RETURNS TABLE (seq bigint, at timestamptz, actor text, login text, op "char", diff jsonb,
               request_id text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
BEGIN
    PERFORM audit.note_read(schema_name || '.' || table_name, id, '{"by": "history"}');
    RETURN QUERY
        SELECT l.seq, l.at, l.actor, l.login, l.op, l.diff, l.request_id FROM audit.audit_log l
         WHERE l.rel = schema_name || '.' || table_name AND l.pk = history.id
         ORDER BY l.at, l.seq;
END
$body$;
GRANT EXECUTE ON FUNCTION audit.history(text, text, text) TO {app};

-- The tree of RFC 6962: a leaf is hashed behind a 0 byte, a pair behind a 1 byte, and the odd one
-- at the end of a level goes up as it is.
CREATE FUNCTION audit.merkle_root(leaves bytea[]) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    level bytea[] := leaves;
    size integer := cardinality(leaves);
BEGIN
    WHILE size > 1 LOOP
        SELECT array_agg(CASE WHEN 2 * i > size THEN level[2 * i - 1]
                              ELSE sha256('\x01'::bytea || level[2 * i - 1] || level[2 * i]) END
                         ORDER BY i)
          INTO level
          FROM generate_series(1, (size + 1) / 2) AS i;
        size := cardinality(level);
    END LOOP;
    RETURN level[1];
END
$body$;

-- One block: at most 1000 rows that follow each other by (xid, seq), its leaves in the order of seq.
CREATE FUNCTION audit.append_block(members bigint[], xids xid8[], leaves bytea[], of_era integer,
                                   following xid8) RETURNS audit.seal_block
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    before audit.seal_block;
    made audit.seal_block;
BEGIN
    SELECT * INTO before FROM audit.seal_block ORDER BY block DESC LIMIT 1;
    made.block := coalesce(before.block, 0) + 1;
    made.era := of_era;
    SELECT range_agg(int8range(seq, seq, '[]')) INTO made.seqs FROM unnest(members) AS seq;
    made.row_count := cardinality(members);
    made.first_seq := members[1];
    made.last_seq := members[made.row_count];
    SELECT x INTO made.first_xid FROM unnest(xids) AS x ORDER BY x LIMIT 1;
    SELECT x INTO made.last_xid FROM unnest(xids) AS x ORDER BY x DESC LIMIT 1;
    made.next_xid := following;
    made.prev_hash := coalesce(before.block_hash, decode(repeat('00', 32), 'hex'));
    made.root := audit.merkle_root(leaves);
    made.block_hash := sha256(made.prev_hash || made.root || int8send(made.row_count::bigint)
        || convert_to(concat_ws(' ', made.era, made.seqs, made.first_xid, made.last_xid,
                                made.next_xid), 'UTF8'));
    made.sealed_at := clock_timestamp();
    INSERT INTO audit.seal_block SELECT made.*;
    RETURN made;
END
$body$;

-- Seals what is settled and returns the new blocks. Settled: written by a transaction that is over
-- and that no transaction older than it outlives. The first time on a cluster, everything there is
-- is sealed while writers wait, because the xids of another cluster say nothing.
CREATE FUNCTION audit.seal() RETURNS SETOF audit.seal_block
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $body$
DECLARE
    block_rows CONSTANT integer := 1000;
    most_rows CONSTANT integer := 100000;
    here bigint := (SELECT system_identifier FROM pg_control_system());
    now_era audit.seal_era;
    newest audit.seal_block;
    start_xid xid8 := '0';
    horizon xid8;
    some_way xid8;
    sweep boolean;
    known_seq bigint;
    run record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('audit.seal', 0)) THEN
        RETURN;
    END IF;
    SELECT * INTO now_era FROM audit.seal_era ORDER BY era DESC LIMIT 1;
    SELECT * INTO newest FROM audit.seal_block ORDER BY block DESC LIMIT 1;
    IF newest.era = now_era.era THEN
        start_xid := newest.next_xid;
    END IF;
    sweep := now_era.cluster IS DISTINCT FROM here;
    IF sweep THEN
        LOCK TABLE audit.audit_log IN SHARE MODE;
        SELECT coalesce(max(last_seq), 0) INTO known_seq FROM audit.seal_block;
        horizon := '0';
    ELSE
        horizon := pg_snapshot_xmin(pg_current_snapshot());
        SELECT xid INTO some_way FROM audit.audit_log
         WHERE xid >= start_xid AND xid < horizon AND seq > now_era.floor_seq
         ORDER BY xid OFFSET most_rows LIMIT 1;
        IF FOUND THEN  -- the rest comes next time, from the transaction after this one on
            horizon := CAST(CAST(CAST(CAST(some_way AS text) AS numeric) + 1 AS text) AS xid8);
        END IF;
    END IF;
    IF sweep THEN
        INSERT INTO audit.seal_era (era, cluster, floor_seq)
        SELECT coalesce(now_era.era, 0) + 1, here, coalesce(max(seq), 0) FROM audit.audit_log
        RETURNING * INTO now_era;
    END IF;
    FOR run IN
        SELECT array_agg(q.seq ORDER BY q.seq) AS seqs, array_agg(q.xid ORDER BY q.seq) AS xids,
               array_agg(sha256('\x00'::bytea || convert_to(q.leaf, 'UTF8')) ORDER BY q.seq)
                   AS leaves,
               q.part = max(q.part) OVER () AS is_last
          FROM (SELECT l.seq, l.xid, (row_number() OVER (ORDER BY l.xid, l.seq) - 1) / block_rows AS part,
                       CAST(jsonb_build_array(l.seq, CAST(extract(epoch FROM l.at) * 1000000
                            AS bigint), CAST(l.xid AS text), l.actor, l.login, l.application_name,
                            CAST(l.op AS text), l.rel, l.pk, l.diff, l.request_id) AS text) AS leaf
                  FROM audit.audit_log l
                 WHERE CASE WHEN sweep THEN l.seq > known_seq OR l.xid >= start_xid
                                            AND l.seq > coalesce((SELECT e.floor_seq
                                                FROM audit.seal_era e WHERE e.era = now_era.era - 1)
                                                , 0)
                            ELSE l.xid >= start_xid AND l.xid < horizon
                                 AND l.seq > now_era.floor_seq END) AS q
         GROUP BY q.part ORDER BY q.part
    LOOP
        RETURN NEXT audit.append_block(run.seqs, run.xids, run.leaves, now_era.era,
            CASE WHEN sweep THEN '0' WHEN run.is_last THEN horizon ELSE start_xid END);
    END LOOP;
END
$body$;

SET LOCAL ROLE {owner};
