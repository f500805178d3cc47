"""Who may do what to every column of a clinic: one table here, compared with the catalogs."""

# ruff: noqa: S608 - the names in the SQL are constants of these tests

from collections.abc import AsyncIterator

import asyncpg
import pytest

from control_plane.adapters.postgres_server import Connection
from tests.integration.tenant_server.clinic import DENIED, Clinic, leased, sqlstate
from tests.integration.tenant_server.clinic_rows import MINIMAL, acting, add

# One letter for each right on a column: the app's Select, Insert, Update; then the reader's Select.
KEY, TIME, REASON = "SI-S", "S--S", "S---"
OPEN, HIDDEN = "SIUS", "SIU-"
COMMON = {
    "id": KEY,
    "created_at": TIME,
    "updated_at": TIME,
    "deleted_at": TIME,
    "deleted_reason": REASON,
}
UNSEEN = dict.fromkeys(COMMON, "S---") | {"id": "SI--"}
RIGHTS: dict[str, dict[str, str]] = {
    "public.city": COMMON | dict.fromkeys(("country_code", "region", "name"), OPEN),
    "public.specialty": COMMON | dict.fromkeys(("parent_id", "name"), OPEN),
    "providers.provider": COMMON
    | dict.fromkeys(("display_name", "specialty_id", "city_id", "is_available"), OPEN),
    "providers.provider_specialty": COMMON | dict.fromkeys(("provider_id", "specialty_id"), OPEN),
    "providers.service": COMMON
    | dict.fromkeys(("provider_id", "name", "duration_minutes", "price", "currency"), OPEN),
    "providers.availability": COMMON | dict.fromkeys(("provider_id", "starts_at", "ends_at"), OPEN),
    "patients.patient": COMMON
    | dict.fromkeys(
        (
            "name_ciphertext",
            "name_blind_index",
            "email_ciphertext",
            "email_blind_index",
            "phone_ciphertext",
            "phone_blind_index",
            "birth_date_ciphertext",
        ),
        HIDDEN,
    ),
    "patients.preference": COMMON | {"patient_id": OPEN, "name": OPEN, "value": HIDDEN},
    "patients.health_condition": UNSEEN
    | dict.fromkeys(
        (
            "patient_id",
            "condition_ciphertext",
            "code_ciphertext",
            "notes_ciphertext",
            "clinical_status",
            "recorded_at",
        ),
        HIDDEN,
    ),
    "bookings.appointment": COMMON
    | dict.fromkeys(("provider_id", "patient_id", "service_id", "appointment_at", "status"), OPEN)
    | {"notes_ciphertext": HIDDEN},
    "bookings.payment": COMMON
    | dict.fromkeys(("appointment_id", "amount", "currency", "status"), OPEN),
    "bookings.review": COMMON
    | {"appointment_id": OPEN, "rating": OPEN, "comment_ciphertext": HIDDEN},
    "reports.provider_revenue": dict.fromkeys(
        (
            "provider_id",
            "month",
            "currency",
            "paid_payments",
            "paid",
            "pending",
            "refunded",
            "refreshed_at",
        ),
        TIME,
    ),
    "reports.booking_trends": dict.fromkeys(
        ("day", "status", "specialty_id", "appointments", "providers", "refreshed_at"), TIME
    ),
    "reports.marketplace_health": dict.fromkeys(
        (
            "specialty_id",
            "city_id",
            "providers",
            "available_providers",
            "upcoming",
            "completed",
            "average_rating",
            "refreshed_at",
        ),
        TIME,
    ),
    "public.alembic_version": {"version_num": "----"},
    "cp_meta.identity": dict.fromkeys(
        ("only_row", "tenant_id", "generation", "state", "system_identifier"), TIME
    ),
}
HIDES_SOMETHING = {table for table, rights in RIGHTS.items() if HIDDEN in rights.values()}

COLUMNS = """
SELECT format('%s.%s', n.nspname, c.relname) AS relation, c.relkind = 'v' AS is_view, a.attname,
       concat(CASE WHEN has_column_privilege($1, c.oid, a.attnum, 'SELECT') THEN 'S' ELSE '-' END,
              CASE WHEN has_column_privilege($1, c.oid, a.attnum, 'INSERT') THEN 'I' ELSE '-' END,
              CASE WHEN has_column_privilege($1, c.oid, a.attnum, 'UPDATE') THEN 'U' ELSE '-' END,
              CASE WHEN has_column_privilege($2, c.oid, a.attnum, 'SELECT') THEN 'S' ELSE '-' END)
           AS rights,
       has_column_privilege($2, c.oid, a.attnum, 'INSERT, UPDATE, REFERENCES')
       OR has_column_privilege($1, c.oid, a.attnum, 'REFERENCES') AS more
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname !~ '^(pg_|information_schema|audit$)' AND c.relkind IN ('r', 'p', 'v', 'm')
"""
WHOLE_TABLES = """
SELECT r.rolname, format('%s.%s', n.nspname, c.relname) AS relation, what
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace,
       unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES']) AS what, pg_roles r
 WHERE r.rolname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm')
   AND n.nspname !~ '^(pg_|information_schema)' AND has_table_privilege(r.oid, c.oid, what)
"""
SCHEMAS = """
SELECT nspname::text FROM pg_namespace
 WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
   AND has_schema_privilege($1, oid, $2) ORDER BY 1
"""
DOMAINS = ["bookings", "patients", "providers", "public"]


@pytest.fixture
async def inside(clinics: list[Clinic]) -> AsyncIterator[Connection]:
    async with clinics[0].inside() as connection:
        yield connection


@pytest.fixture
async def app(clinics: list[Clinic]) -> AsyncIterator[Connection]:
    connection = await clinics[0].app()
    yield connection
    await connection.close()


async def test_every_column_is_in_the_table_with_the_rights_it_has(
    clinics: list[Clinic], inside: Connection
) -> None:
    """A column that a revision adds has no purpose until somebody writes its rights down here."""
    roles = clinics[0].roles
    rows = await inside.fetch(COLUMNS, roles.app, roles.reader)
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if not row["is_view"]:
            found.setdefault(row["relation"], {})[row["attname"]] = row["rights"]
    assert found == RIGHTS
    assert [tuple(row) for row in rows if row["more"]] == []


async def test_the_views_of_the_living_give_nothing_that_the_tables_do_not(
    clinics: list[Clinic], inside: Connection
) -> None:
    roles = clinics[0].roles
    found: dict[str, dict[str, str]] = {}
    for row in await inside.fetch(COLUMNS, roles.app, roles.reader):
        if row["is_view"]:
            found.setdefault(row["relation"], {})[row["attname"]] = row["rights"]
    assert found == {
        f"{table}_live": dict.fromkeys(
            RIGHTS[table].keys() - {"deleted_at", "deleted_reason"},
            "S---" if table in HIDES_SOMETHING else "S--S",
        )
        for table in MINIMAL
    }
    options = await inside.fetch(
        """SELECT relname, reloptions FROM pg_class
            WHERE relname ~ '_live$' AND relkind = 'v' ORDER BY 1"""
    )
    wanted = {"security_barrier=true", "security_invoker=true"}
    assert [row["relname"] for row in options if set(row["reloptions"] or ()) != wanted] == []


async def test_nobody_has_more_on_a_whole_table(clinics: list[Clinic], inside: Connection) -> None:
    roles = clinics[0].roles
    limited = [roles.app, roles.reader, *roles.logins, roles.migrator, roles.backup]
    assert [tuple(row) for row in await inside.fetch(WHOLE_TABLES, limited)] == []


async def test_every_role_enters_its_own_schemas_only(
    clinics: list[Clinic], inside: Connection
) -> None:
    roles = clinics[0].roles
    enters = {
        roles.app: {*DOMAINS, "reports", "audit", "cp_meta"},
        roles.reader: {*DOMAINS, "reports", "cp_meta"},
        roles.auditor: {"audit"},
        roles.migrator: set(),
    }
    for role, wanted in enters.items():
        found = {row[0] for row in await inside.fetch(SCHEMAS, role, "USAGE")}
        assert found == wanted, role
    for role in (roles.app, roles.reader, roles.migrator, roles.backup):
        assert await inside.fetch(SCHEMAS, role, "CREATE") == []


async def test_the_reader_sees_what_is_open_and_no_more(
    clinics: list[Clinic], app: Connection
) -> None:
    """Through a real login of the application that gave up the rest for one transaction."""
    async with acting(app):
        await add(app, "bookings.review")
        await add(app, "patients.health_condition")
    become = f"SET LOCAL ROLE {clinics[0].roles.reader}; "
    for table, rights in RIGHTS.items():
        for column, letters in rights.items():
            answer = await sqlstate(app, f"{become}SELECT {column} FROM {table}")
            assert answer == (None if letters[3] == "S" else DENIED), f"{table}.{column}"
        if table in HIDES_SOMETHING:
            assert await sqlstate(app, f"{become}SELECT * FROM {table}") == DENIED
            assert await sqlstate(app, f"{become}SELECT count(*) FROM {table}_live") == DENIED
        for write in (
            f"UPDATE {table} SET {column} = DEFAULT",
            f"INSERT INTO {table} DEFAULT VALUES",
        ):
            assert await sqlstate(app, f"{become}{write}") == DENIED
    assert await app.fetchval("SELECT current_user") == clinics[0].roles.login_a


async def test_the_reader_joins_providers_with_their_bookings(
    clinics: list[Clinic], app: Connection
) -> None:
    async with acting(app):
        review = await add(app, "bookings.review", rating=4)
        await app.execute(f"SET LOCAL ROLE {clinics[0].roles.reader}")
        found = await app.fetchval(
            """SELECT r.rating FROM bookings.review r
                 JOIN bookings.appointment a ON a.id = r.appointment_id
                 JOIN providers.provider_live p ON p.id = a.provider_id
                 JOIN public.specialty_live s ON s.id = p.specialty_id
                WHERE r.id = $1 AND r.deleted_at IS NULL""",
            review,
        )
    assert found == 4


async def test_the_auditor_reads_nothing_of_the_domains(
    clinics: list[Clinic], administrator: Connection
) -> None:
    """It may have rights on columns, for pgaudit to look at, but cannot enter the schemas."""
    await administrator.execute(
        f"GRANT CONNECT ON DATABASE {clinics[0].database} TO {clinics[0].roles.auditor}"
    )
    try:
        async with leased(administrator, clinics[0], clinics[0].roles.auditor) as connection:
            for table in (*MINIMAL, "reports.provider_revenue"):
                assert await sqlstate(connection, f"SELECT id FROM {table}") == DENIED, table
    finally:
        await administrator.execute(
            f"REVOKE CONNECT ON DATABASE {clinics[0].database} FROM {clinics[0].roles.auditor}"
        )


async def test_a_table_made_later_is_read_only_until_a_revision_says_what_is_written(
    clinics: list[Clinic], app: Connection
) -> None:
    """The recipe of docs/clinic-template.md, without which an UPDATE could clear deleted_at."""
    roles = clinics[0].roles
    async with clinics[0].inside() as inside:
        await inside.execute(f"SET ROLE {roles.owner}")
        await inside.execute(
            "CREATE TABLE providers.room (id int, name text, deleted_at timestamptz)"
        )
        try:
            assert await sqlstate(app, "SELECT * FROM providers.room") is None
            assert await sqlstate(app, "INSERT INTO providers.room VALUES (1)") == DENIED
            await inside.execute(
                f"GRANT INSERT (id, name), UPDATE (name) ON providers.room TO {roles.app}"
            )
            assert await sqlstate(app, "INSERT INTO providers.room (id) VALUES (1)") is None
            assert await sqlstate(app, "UPDATE providers.room SET name = ''") is None
            assert await sqlstate(app, "UPDATE providers.room SET deleted_at = NULL") == DENIED
            reader = f"SET LOCAL ROLE {roles.reader}; SELECT * FROM providers.room"
            assert await sqlstate(app, reader) == DENIED
        finally:
            await inside.execute("DROP TABLE providers.room")


async def test_a_large_object_cannot_be_made_so_every_backup_is_whole(
    clinics: list[Clinic], administrator: Connection, app: Connection
) -> None:
    roles = clinics[0].roles
    makers = ("lo_create(0)", "lo_creat(-1)", "lo_from_bytea(0, 'x')", "lo_import('/etc/hostname')")
    for maker in makers:
        assert await sqlstate(app, f"SELECT {maker}") == DENIED
        async with leased(administrator, clinics[0], roles.migrator) as connection:
            become = f"SET LOCAL ROLE {roles.owner}; SELECT {maker}"
            assert await sqlstate(connection, become) == DENIED
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("SELECT lo_put(lo_create(0), 0, 'x')")
