"""The audit log of a clinic, and every way in which somebody would like to get around it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest

from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.schema_fingerprint import read_fingerprint, role_names
from tests.integration.tenant_server.clinic import DENIED, Clinic, leased, sqlstate

NEW_PATIENT = "INSERT INTO patients.patient (name_ciphertext) VALUES ('\\xc1') RETURNING id"
LINES = "SELECT * FROM audit.audit_log WHERE pk = $1 ORDER BY seq"


@pytest.fixture
async def app(clinics: list[Clinic]) -> AsyncIterator[Connection]:
    connection = await clinics[0].app()
    yield connection
    await connection.close()


@asynccontextmanager
async def acting(connection: Connection, user: str, request: str = "") -> AsyncIterator[None]:
    async with connection.transaction():
        await connection.execute("SELECT set_config('app.user_id', $1, true)", user)
        await connection.execute("SELECT set_config('app.request_id', $1, true)", request)
        yield


async def lines(clinic: Clinic, pk: object) -> list[asyncpg.Record]:
    async with clinic.inside() as connection:
        return list(await connection.fetch(LINES, str(pk)))


async def test_every_write_leaves_who_what_when_and_the_columns_that_changed(
    clinics: list[Clinic], app: Connection
) -> None:
    name = str(uuid4())
    async with acting(app, "alice", "request-1"):
        city = await app.fetchval(
            "INSERT INTO public.city (country_code, region, name) VALUES ('CH', 'ZH', $1) "
            "RETURNING id",
            name,
        )
    async with acting(app, "bob"):
        await app.execute("UPDATE public.city SET region = 'BE' WHERE id = $1", city)
        await app.execute("SELECT public.soft_delete('public.city', $1, 'a duplicate')", city)
    made, moved, deleted = await lines(clinics[0], city)
    assert (made["actor"], made["op"], made["rel"]) == ("alice", b"I", "public.city")
    assert (made["login"], made["request_id"]) == (clinics[0].roles.login_a, "request-1")
    assert json.loads(made["diff"])["name"] == {"new": name}
    assert "deleted_at" not in json.loads(made["diff"])
    assert (moved["actor"], moved["op"], moved["request_id"]) == ("bob", b"U", None)
    changed = json.loads(moved["diff"])
    assert changed.pop("updated_at").keys() == {"old", "new"}
    assert changed == {"region": {"old": "ZH", "new": "BE"}}
    assert json.loads(deleted["diff"])["deleted_reason"] == {"old": None, "new": "a duplicate"}
    assert made["xid"] != moved["xid"] == deleted["xid"]


async def test_ciphertext_is_logged_as_it_is_stored(clinics: list[Clinic], app: Connection) -> None:
    async with acting(app, "alice"):
        patient = await app.fetchval(NEW_PATIENT)
    [line] = await lines(clinics[0], patient)
    assert json.loads(line["diff"])["name_ciphertext"] == {"new": "\\xc1"}


async def test_an_application_must_name_who_acts(app: Connection) -> None:
    assert await sqlstate(app, NEW_PATIENT) == DENIED
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"SELECT set_config\('app"):
        await app.execute(NEW_PATIENT)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with acting(app, ""):
            await app.execute(NEW_PATIENT)


async def test_the_name_ends_with_the_transaction(app: Connection) -> None:
    async with acting(app, "alice"):
        await app.execute(NEW_PATIENT)
    assert await app.fetchval("SELECT current_setting('app.user_id', true)") == ""
    assert await sqlstate(app, NEW_PATIENT) == DENIED
    await app.execute("SELECT set_config('app.user_id', 'alice', true)")  # gone with its statement
    assert await sqlstate(app, NEW_PATIENT) == DENIED


async def test_whoever_is_no_application_acts_under_its_login(
    clinics: list[Clinic], administrator: Connection
) -> None:
    clinic = clinics[0]
    async with leased(administrator, clinic, clinic.roles.migrator) as connection:
        await connection.execute(f"SET ROLE {clinic.roles.owner}")
        await connection.execute("SELECT set_config('app.user_id', 'alice', false)")
        patient = await connection.fetchval(NEW_PATIENT)
    [line] = await lines(clinic, patient)
    assert (line["actor"], line["login"]) == (clinic.roles.migrator,) * 2


async def test_what_is_rolled_back_was_not_written(clinics: list[Clinic], app: Connection) -> None:
    transaction = app.transaction()
    await transaction.start()
    await app.execute("SELECT set_config('app.user_id', 'alice', true)")
    patient = await app.fetchval(NEW_PATIENT)
    await transaction.rollback()
    assert await lines(clinics[0], patient) == []


FORGERIES = {
    "insert": "INSERT INTO audit.audit_log (actor, op, rel) VALUES ('alice', 'U', 'x')",
    "insert with a number": "INSERT INTO audit.audit_log (seq, actor, op, rel) "
    "OVERRIDING SYSTEM VALUE VALUES (1, 'alice', 'U', 'x')",
    "insert into a partition": "INSERT INTO audit.audit_log_default (seq, actor, op, rel) "
    "OVERRIDING SYSTEM VALUE VALUES (1, 'alice', 'U', 'x')",
    "update": "UPDATE audit.audit_log SET actor = 'bob'",
    "delete": "DELETE FROM audit.audit_log",
    "delete from a partition": "DELETE FROM audit.audit_log_default",
    "truncate": "TRUNCATE audit.audit_log",
    "read": "SELECT * FROM audit.audit_log",
    "copy": "COPY audit.audit_log TO STDOUT",
    "drop": "DROP TABLE audit.audit_log CASCADE",
    "drop a partition": "DROP TABLE audit.audit_log_default",
    "detach": "ALTER TABLE audit.audit_log DETACH PARTITION audit.audit_log_default",
    "disable the trigger": "ALTER TABLE audit.audit_log DISABLE TRIGGER ALL",
    "disable it on a partition": "ALTER TABLE audit.audit_log_default DISABLE TRIGGER deny_change",
    "drop the trigger": "DROP TRIGGER deny_change ON audit.audit_log",
    "own trigger": "CREATE TRIGGER mine BEFORE INSERT ON audit.audit_log FOR EACH ROW "
    "EXECUTE FUNCTION audit.capture()",
    "drop the schema": "DROP SCHEMA audit CASCADE",
    "rename the schema": "ALTER SCHEMA audit RENAME TO mine",
    "own table": "CREATE TABLE audit.mine ()",
    "replace": "CREATE OR REPLACE FUNCTION audit.acting() RETURNS text LANGUAGE sql "
    "AS $$SELECT 'alice'$$",
    "renumber": "SELECT setval('audit.audit_log_seq_seq', 1)",
    "seal": "SELECT audit.seal()",
    "partitions": "SELECT audit.ensure_partitions()",
    "forged block": "SELECT audit.append_block('{1}', '{1}', '{x}', 1, '1')",
    "rewrite a block": "UPDATE audit.seal_block SET block_hash = block_hash",
    "forget a block": "DELETE FROM audit.seal_block",
    "another era": "INSERT INTO audit.seal_era VALUES (9, 9, 9)",
    "replica": "SET session_replication_role = replica",
    "become the auditor": "SET ROLE {auditor}",
    "inherit from the auditor": "GRANT {auditor} TO {login_a}",
}
# The log's keeper may start these; what follows would be a forgery only for somebody who cannot.
OF_AN_APPLICATION = {
    "forged read": "SELECT audit.note_read('patients.patient', '1')",
    "forged capture": "SELECT audit.capture()",
    "switch off capture": "ALTER TABLE patients.patient DISABLE TRIGGER zz_audit",
    "drop capture": "DROP TRIGGER zz_audit ON patients.patient",
}


async def test_the_application_cannot_touch_the_log(clinics: list[Clinic], app: Connection) -> None:
    tries = FORGERIES | OF_AN_APPLICATION
    assert await _answers(app, clinics[0], tries) == dict.fromkeys(tries, DENIED)


@pytest.mark.parametrize("as_owner", [False, True], ids=["migrator", "owner"])
async def test_neither_can_the_migrator_nor_the_owner(
    clinics: list[Clinic], administrator: Connection, *, as_owner: bool
) -> None:
    clinic = clinics[0]
    async with leased(administrator, clinic, clinic.roles.migrator) as connection:
        if as_owner:
            await connection.execute(f"SET ROLE {clinic.roles.owner}")
        assert await _answers(connection, clinic, FORGERIES) == dict.fromkeys(FORGERIES, DENIED)


async def test_the_backup_and_the_reader_change_nothing_either(
    clinics: list[Clinic], administrator: Connection
) -> None:
    clinic = clinics[0]
    tries = {k: v for k, v in FORGERIES.items() if k not in ("read", "copy")}
    async with leased(administrator, clinic, clinic.roles.backup) as connection:
        await connection.execute("SET default_transaction_read_only = off")
        assert await sqlstate(connection, FORGERIES["read"]) is None
        assert await _answers(connection, clinic, tries) == dict.fromkeys(tries, DENIED)
    async with clinic.inside() as connection:
        await connection.execute(f"SET ROLE {clinic.roles.reader}")
        # The administrator may do these two whatever it plays.
        tries = {k: v for k, v in FORGERIES.items() if k not in ("replica", "become the auditor")}
        assert await _answers(connection, clinic, tries) == dict.fromkeys(tries, DENIED)


async def _answers(
    connection: Connection, clinic: Clinic, tries: dict[str, str]
) -> dict[str, str | None]:
    names = {"auditor": clinic.roles.auditor, "login_a": clinic.roles.login_a}
    return {
        what: await sqlstate(
            connection,
            statement.replace("{auditor}", names["auditor"]).replace("{login_a}", names["login_a"]),
        )
        for what, statement in tries.items()
    }


async def test_even_the_auditor_only_appends(clinics: list[Clinic]) -> None:
    """The triggers that deny are ALWAYS: replica mode skips ordinary ones."""
    async with clinics[0].inside() as connection:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute(f"SET LOCAL ROLE {clinics[0].roles.auditor}")
            for table in ("audit_log", "audit_log_default", "seal_block", "seal_era"):
                assert await sqlstate(connection, f"TRUNCATE audit.{table} CASCADE") == DENIED
        unguarded = await connection.fetch(
            """SELECT c.oid::regclass::text FROM pg_class c
                WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind IN ('r', 'p')
                  AND (SELECT count(*) FROM pg_trigger t
                        WHERE t.tgrelid = c.oid AND t.tgenabled = 'A'
                          AND t.tgname IN ('deny_change', 'deny_truncate')) <> 2"""
        )
        assert unguarded == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute("UPDATE audit.audit_log SET actor = 'nobody'")


async def test_every_table_of_the_finished_schema_is_captured(clinics: list[Clinic]) -> None:
    async with clinics[0].inside() as connection:
        rows = await connection.fetch(
            """SELECT c.oid::regclass::text AS name,
                       ARRAY(SELECT format('%s %s', t.tgname, t.tgenabled) FROM pg_trigger t
                              WHERE t.tgrelid = c.oid AND t.tgfoid = 'audit.capture'::regproc
                              ORDER BY 1) AS triggers,
                       (SELECT max(t.tgname) FROM pg_trigger t
                         WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) AS last
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
                   AND n.nspname IN ('public', 'providers', 'patients', 'bookings')"""
        )
    assert len(rows) >= 11
    # Ordinary triggers: ALWAYS would log twice on the target of a logical replication.
    wanted = ["zz_audit O", "zz_audit_truncate O"]
    assert {row["name"]: row["triggers"] for row in rows} == {r["name"]: wanted for r in rows}
    assert {row["last"] for row in rows} == {"zz_audit_truncate"}


async def test_nobody_but_the_owner_may_capture_and_nobody_calls_the_rest(
    clinics: list[Clinic],
) -> None:
    async with clinics[0].inside() as connection:
        rows = await connection.fetch(
            """SELECT p.proname AS name, r.rolname AS role
                 FROM pg_proc p CROSS JOIN unnest($1::text[]) AS r (rolname)
                WHERE p.pronamespace = 'audit'::regnamespace
                  AND has_function_privilege(r.rolname, p.oid, 'EXECUTE')""",
            [r for r in clinics[0].roles.every if r != clinics[0].roles.auditor],
        )
    roles = clinics[0].roles
    allowed = {(row["name"], row["role"]) for row in rows}
    assert allowed == {
        ("capture", roles.owner),
        ("note_read", roles.owner),
        ("history", roles.app),
        ("history", roles.login_a),
        ("history", roles.login_b),
    }


async def test_the_history_of_a_record_is_a_read_of_it(
    clinics: list[Clinic], app: Connection
) -> None:
    async with acting(app, "alice"):
        patient = await app.fetchval(NEW_PATIENT)
    asked = "SELECT actor, op FROM audit.history('patients', 'patient', $1)"
    async with acting(app, "curious"):
        found = await app.fetch(asked, str(patient))
    assert [tuple(row) for row in found] == [("alice", b"I"), ("curious", b"R")]
    assert (await lines(clinics[0], patient))[-1]["actor"] == "curious"
    assert await sqlstate(app, "SELECT * FROM audit.history('a', 'b', 'c')") == DENIED


async def test_a_record_is_read_through_a_function_that_logs(
    clinics: list[Clinic], app: Connection
) -> None:
    index = uuid4().bytes
    async with acting(app, "alice"):
        patient = await app.fetchval(
            "INSERT INTO patients.patient (name_ciphertext, email_blind_index) "
            "VALUES ('\\xc1', $1) RETURNING id",
            index,
        )
        condition = await app.fetchval(
            "INSERT INTO patients.health_condition (patient_id, condition_ciphertext) "
            "VALUES ($1, '\\xc2') RETURNING id",
            patient,
        )
    async with acting(app, "reader"):
        found = [
            await app.fetchval("SELECT id FROM patients.get_patient($1)", patient),
            await app.fetchval("SELECT id FROM patients.find_patients_by_email($1)", index),
            await app.fetchval("SELECT id FROM patients.get_health_conditions($1)", patient),
        ]
        assert await app.fetch("SELECT FROM patients.find_patients_by_email('none')") == []
    assert found == [patient, patient, condition]
    reads = [line for line in await lines(clinics[0], patient) if line["op"] == b"R"]
    assert [json.loads(line["diff"])["by"] for line in reads] == [
        "get_patient",
        "find_patients_by_email",
        "get_health_conditions",
    ]
    assert {line["actor"] for line in reads} == {"reader"}
    nobody = f"SELECT FROM patients.get_patient('{patient}')"
    assert await sqlstate(app, nobody) == DENIED
    read_only = "SET TRANSACTION READ ONLY; SELECT set_config('app.user_id', 'x', true); "
    assert await sqlstate(app, read_only + nobody) == "25006"


async def test_a_read_that_is_rolled_back_leaves_a_message_in_the_wal(
    clinics: list[Clinic], app: Connection
) -> None:
    """The row goes with the rollback; what the client saw, it saw."""
    async with acting(app, "alice"):
        patient = await app.fetchval(NEW_PATIENT)
    async with clinics[0].inside() as admin:
        slot = f"audit_{uuid4().hex[:12]}"
        await admin.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput', true)", slot)
        transaction = app.transaction()
        await transaction.start()
        await app.execute("SELECT set_config('app.user_id', 'peeper', true)")
        assert await app.fetchval("SELECT id FROM patients.get_patient($1)", patient) == patient
        await transaction.rollback()
        assert len(await lines(clinics[0], patient)) == 1
        # The WAL writer flushes it within its delay; a switch of segments does so now.
        await admin.execute("SELECT pg_switch_wal()")
        await admin.execute("CREATE PUBLICATION nothing")
        rows = await admin.fetch(
            """SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL,
                   'proto_version', '1', 'publication_names', 'nothing', 'messages', 'true')""",
            slot,
        )
        await admin.execute("DROP PUBLICATION nothing")
    told = [row["data"] for row in rows if b"peeper" in row["data"]]
    assert len(told) == 1
    assert str(patient).encode() in told[0]


async def test_the_app_still_selects_and_pgaudit_would_see_which_columns(
    clinics: list[Clinic], app: Connection
) -> None:
    """pgaudit's object mode logs what touches a column that its role may select."""
    assert await sqlstate(app, "SELECT name_ciphertext FROM patients.patient") is None
    auditor = clinics[0].roles.auditor
    async with clinics[0].inside() as connection:
        wrong = await connection.fetch(
            """SELECT c.oid::regclass || '.' || a.attname AS name
                 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
                  AND c.relnamespace::regnamespace::text IN
                      ('public', 'providers', 'patients', 'bookings')
                  AND (a.attname ~ '_(ciphertext|blind_index)$')
                      <> has_column_privilege($1, c.oid, a.attnum, 'SELECT')""",
            auditor,
        )
        assert wrong == []
        # Marked, yet out of reach: the auditor may not enter the schema.
        await connection.execute(f"SET ROLE {auditor}")
        assert await sqlstate(connection, "SELECT name_ciphertext FROM patients.patient") == DENIED


async def test_partitions_are_made_ahead_and_a_late_month_stays_in_the_default(
    clinics: list[Clinic],
) -> None:
    clinic = clinics[2]
    count = """SELECT count(*) FROM pg_inherits WHERE inhparent = 'audit.audit_log'::regclass"""
    async with clinic.inside() as connection:
        before = await connection.fetchval(count)
        assert before >= 5  # this month, three ahead, and the default
        assert await connection.fetchval("SELECT audit.ensure_partitions()") == 0
        assert await connection.fetchval("SELECT audit.ensure_partitions(5)") == 2
        assert await connection.fetchval(count) == before + 2
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            """INSERT INTO audit.audit_log (actor, op, rel, at)
               VALUES ('test', 'U', 'x', date_trunc('month', now()) + interval '6 months 3 days')"""
        )
        assert await connection.fetchval("SELECT audit.ensure_partitions(7)") == 1
        await transaction.rollback()


async def test_another_month_is_no_drift(clinics: list[Clinic]) -> None:
    """Tenants have as many partitions as they have months; their schema is the same."""
    roles = role_names(clinics[1].roles)
    async with clinics[1].inside() as connection:
        before = await read_fingerprint(connection, roles)
        assert await connection.fetchval("SELECT audit.ensure_partitions(9)") > 0
        assert await read_fingerprint(connection, roles) == before


async def test_a_write_waits_for_no_other_write(clinics: list[Clinic], app: Connection) -> None:
    """Rows are not chained as they are written: that would put every writer in one queue."""
    other = await clinics[0].app()
    async with acting(app, "alice"):
        await app.execute(NEW_PATIENT)
        async with asyncio.timeout(5), acting(other, "bob"):
            assert isinstance(await other.fetchval(NEW_PATIENT), UUID)
    await other.close()
