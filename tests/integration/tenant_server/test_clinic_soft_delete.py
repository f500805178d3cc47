"""Soft delete that holds: nothing is deleted, nothing hangs below what was deleted (§2.6)."""

# ruff: noqa: S608 - the names in the SQL are constants of these tests
import asyncio
from collections.abc import AsyncIterator
from typing import Literal
from uuid import uuid4

import asyncpg
import pytest

from control_plane.adapters.postgres_server import Connection
from tests.integration.tenant_server.clinic import DENIED, Clinic, leased, sqlstate
from tests.integration.tenant_server.clinic_rows import MINIMAL, acting, add, soft_delete

ORPHAN = "23503"
# What only the database writes; id is given once, by the insert.
KEPT = ("created_at", "updated_at", "deleted_at", "deleted_reason")
PAIRS = [
    ("public.specialty", "parent_id", "public.specialty"),
    ("bookings.appointment", "service_id", "providers.service"),
    *(
        (child, column, parent)
        for child, columns in MINIMAL.items()
        for column, parent in columns.items()
        if isinstance(parent, str)
    ),
]
PAIR_NAMES = [f"{child}.{column}" for child, column, _ in PAIRS]
BLOCKED = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"


@pytest.fixture
async def app(clinics: list[Clinic]) -> AsyncIterator[Connection]:
    connection = await clinics[0].app()
    yield connection
    await connection.close()


@pytest.fixture
async def other(clinics: list[Clinic]) -> AsyncIterator[Connection]:
    """A second session of the same application."""
    connection = await clinics[0].app()
    yield connection
    await connection.close()


@pytest.fixture
async def inside(clinics: list[Clinic]) -> AsyncIterator[Connection]:
    async with clinics[0].inside() as connection:
        yield connection


async def test_the_pairs_are_all_there_are(inside: Connection) -> None:
    found = await inside.fetch(
        """SELECT conrelid::regclass::text, attname::text, confrelid::regclass::text
             FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
            WHERE contype = 'f' AND connamespace <> 'audit'::regnamespace"""
    )
    qualified = {
        tuple(name if "." in name else f"public.{name}" for name in (row[0], row[2]))
        for row in found
    }
    assert qualified == {(child, parent) for child, _, parent in PAIRS}
    assert len(found) == len(PAIRS)


@pytest.mark.parametrize("table", MINIMAL)
async def test_the_application_never_deletes_nor_touches_what_the_database_keeps(
    app: Connection, table: str
) -> None:
    for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"TRUNCATE {table} CASCADE"):
        assert await sqlstate(app, statement) == DENIED
    for column in ("id", *KEPT):
        assert await sqlstate(app, f"UPDATE {table} SET {column} = DEFAULT") == DENIED, column
    for column in KEPT:
        insert = f"INSERT INTO {table} ({column}) VALUES (DEFAULT)"
        assert await sqlstate(app, insert) == DENIED, column
    for statement in (
        f"DELETE FROM {table}_live",
        f"UPDATE {table}_live SET id = id",
        f"INSERT INTO {table}_live DEFAULT VALUES",
    ):
        assert await sqlstate(app, statement) == DENIED, statement


@pytest.mark.parametrize("table", MINIMAL)
async def test_not_even_the_owner_deletes(
    clinics: list[Clinic], inside: Connection, app: Connection, table: str
) -> None:
    async with acting(app):
        key = await add(app, table)
    await inside.execute(f"SET ROLE {clinics[0].roles.owner}")
    assert await sqlstate(inside, f"DELETE FROM {table} WHERE id = '{key}'") == "23001"
    assert await sqlstate(inside, f"TRUNCATE {table} CASCADE") == "23001"


@pytest.mark.parametrize("table", MINIMAL)
async def test_a_soft_deleted_row_is_marked_with_its_reason_and_leaves_the_view(
    app: Connection, table: str
) -> None:
    seen = f"SELECT count(*) FROM {table}_live WHERE id = $1"
    async with acting(app):
        key = await add(app, table)
        assert await app.fetchval(seen, key) == 1
        assert await soft_delete(app, table, key, "  entered twice ")
        assert await app.fetchval(seen, key) == 0
        marked = await app.fetchrow(
            f"SELECT deleted_at = now() AS now, deleted_reason FROM {table} WHERE id = $1", key
        )
        assert dict(marked or {}) == {"now": True, "deleted_reason": "entered twice"}
    async with acting(app):
        assert not await soft_delete(app, table, key, "again")
        assert not await soft_delete(app, table, uuid4(), "unknown")
        reason = await app.fetchval(f"SELECT deleted_reason FROM {table} WHERE id = $1", key)
        assert reason == "entered twice"


@pytest.mark.parametrize("reason", ["NULL", "''", "'  '", "E'\\n\\t'"])
async def test_a_reason_is_wanted(app: Connection, reason: str) -> None:
    call = f"SELECT public.soft_delete('public.city', gen_random_uuid(), {reason})"
    assert await sqlstate(app, call) == "22023"


@pytest.mark.parametrize(
    "relation",
    [
        "cp_meta.identity",
        "public.alembic_version",
        "patients.patient_live",
        "patients.patient_pkey",
        "pg_catalog.pg_authid",
        "audit.audit_log",
        None,
    ],
)
async def test_only_tables_of_the_pattern_are_soft_deleted(
    app: Connection, relation: str | None
) -> None:
    name = "NULL" if relation is None else f"'{relation}'"
    call = f"SELECT public.soft_delete({name}, gen_random_uuid(), 'x')"
    assert await sqlstate(app, call) == DENIED


async def test_nobody_but_the_application_may_call_it(
    clinics: list[Clinic], administrator: Connection, app: Connection
) -> None:
    roles = clinics[0].roles
    call = "SELECT public.soft_delete('public.city', gen_random_uuid(), 'x')"
    assert await sqlstate(app, f"SET LOCAL ROLE {roles.reader}; {call}") == DENIED
    for role in (roles.migrator, roles.backup):
        async with leased(administrator, clinics[0], role) as connection:
            assert await sqlstate(connection, call) == DENIED
    helpers = ("refuse_delete()", "refuse_orphans()", "require_live_parent()", "touch_updated_at()")
    for helper in helpers:
        assert await sqlstate(app, f"SELECT public.{helper}") == DENIED


async def test_what_runs_as_the_owner_finds_nothing_by_the_callers_search_path(
    inside: Connection,
) -> None:
    """A caller's own operator or table in front of pg_catalog would run as the owner."""
    functions = await inside.fetch(
        """SELECT p.oid::regprocedure::text AS name, p.proconfig FROM pg_proc p
             JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE p.prosecdef AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"""
    )
    assert len(functions) >= 3
    loose = [
        row["name"]
        for row in functions
        if not any(s.startswith("search_path=pg_catalog") for s in row["proconfig"] or ())
    ]
    assert loose == []


@pytest.mark.parametrize(("child", "column", "parent"), PAIRS, ids=PAIR_NAMES)
async def test_a_parent_with_living_children_stays_and_a_deleted_one_gets_none(
    app: Connection, inside: Connection, child: str, column: str, parent: str
) -> None:
    async with acting(app):
        above, unrelated = await add(app, parent), await add(app, child)
        below = await add(app, child, **{column: above})
    with pytest.raises(
        asyncpg.ForeignKeyViolationError, match=f"still has living rows in.*{child.split('.')[1]}"
    ):
        async with acting(app):
            await soft_delete(app, parent, above)
    async with acting(app):
        assert await soft_delete(app, child, below)
        assert await soft_delete(app, parent, above)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="is deleted or does not exist"):
        async with acting(app):
            await add(app, child, **{column: above})
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="is deleted or does not exist"):
        async with acting(app):
            await app.execute(f"UPDATE {child} SET {column} = $1 WHERE id = $2", above, unrelated)
    # Coming back to life below a dead parent is refused to everybody.
    undelete = f"UPDATE {child} SET deleted_at = NULL, deleted_reason = NULL WHERE id = '{below}'"
    assert await sqlstate(inside, undelete) == ORPHAN


@pytest.mark.parametrize(("child", "column", "parent"), PAIRS, ids=PAIR_NAMES)
async def test_a_child_waits_for_a_soft_delete_that_is_under_way(
    app: Connection, other: Connection, inside: Connection, child: str, column: str, parent: str
) -> None:
    """Without the lock on the parent both would commit, and a dead parent gain a child."""

    async def add_child() -> None:
        async with acting(other):
            await add(other, child, **{column: above})

    async with acting(app):
        above = await add(app, parent)
    async with acting(app):
        await soft_delete(app, parent, above)
        adding = asyncio.create_task(add_child())
        await until_blocked(inside, other)
        assert not adding.done()
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="is deleted"):
        await adding


@pytest.mark.parametrize(("child", "column", "parent"), PAIRS, ids=PAIR_NAMES)
async def test_a_soft_delete_waits_for_a_child_that_is_being_added(
    app: Connection, other: Connection, inside: Connection, child: str, column: str, parent: str
) -> None:
    async def delete_parent() -> None:
        async with acting(other):
            await soft_delete(other, parent, above)

    async with acting(app):
        above = await add(app, parent)
    async with acting(app):
        await add(app, child, **{column: above})
        deleting = asyncio.create_task(delete_parent())
        await until_blocked(inside, other)
        assert not deleting.done()
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="still has living rows"):
        await deleting


async def until_blocked(observer: Connection, waiting: Connection) -> None:
    """Until ``waiting`` waits for a lock; the test's own timeout ends a wait in vain."""
    for _ in range(500):
        if await observer.fetchval(BLOCKED, waiting.get_server_pid()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not wait for the other transaction")


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_an_old_snapshot_cannot_miss_a_child(
    app: Connection, other: Connection, isolation: Literal["repeatable_read", "serializable"]
) -> None:
    """The check would look for children at a time when there was none."""
    async with acting(app):
        above = await add(app, "patients.patient")
    old = app.transaction(isolation=isolation)
    await old.start()
    await app.execute("SELECT set_config('app.user_id', 'somebody', true)")
    async with acting(other):
        await add(other, "patients.preference", patient_id=above)
    with pytest.raises(asyncpg.PostgresError, match="READ COMMITTED") as refused:
        await soft_delete(app, "patients.patient", above)
    assert refused.value.sqlstate == "25000"
    await old.rollback()


async def test_a_child_with_an_old_snapshot_sees_that_its_parent_died(
    app: Connection, other: Connection
) -> None:
    async with acting(app):
        above = await add(app, "patients.patient")
    old = app.transaction(isolation="repeatable_read")
    await old.start()
    await app.execute("SELECT set_config('app.user_id', 'somebody', true)")
    async with acting(other):
        await soft_delete(other, "patients.patient", above)
    with pytest.raises(asyncpg.SerializationError):
        await add(app, "patients.preference", patient_id=above)
    await old.rollback()


async def test_a_unique_value_is_free_again_after_a_soft_delete(app: Connection) -> None:
    async with acting(app):
        email = uuid4().bytes
        first = await add(app, "patients.patient", email_blind_index=email)
    with pytest.raises(asyncpg.UniqueViolationError):
        async with acting(app):
            await add(app, "patients.patient", email_blind_index=email)
    async with acting(app):
        await soft_delete(app, "patients.patient", first)
        await add(app, "patients.patient", email_blind_index=email)


async def test_names_and_numbers_are_shared_and_a_specialty_is_held_once(app: Connection) -> None:
    async with acting(app):
        for _ in range(2):
            await add(app, "patients.patient", name_blind_index=b"same", phone_blind_index=b"same")
        provider = await add(app, "providers.provider")
        specialties = [await add(app, "public.specialty") for _ in range(2)]
        held = [
            await add(
                app, "providers.provider_specialty", provider_id=provider, specialty_id=specialty
            )
            for specialty in specialties
        ]
        await soft_delete(app, "providers.provider_specialty", held[0])
        again = {"provider_id": provider, "specialty_id": specialties[0]}
        await add(app, "providers.provider_specialty", **again)
    with pytest.raises(asyncpg.UniqueViolationError):
        async with acting(app):
            await add(app, "providers.provider_specialty", **again)


async def test_the_view_uses_the_indexes_of_its_table(app: Connection) -> None:
    one = f"'{uuid4()}'"
    lookups = {
        "patients.patient_live WHERE email_blind_index = '\\x00'": "patient_email_key",
        "patients.patient_live WHERE name_blind_index = '\\x00'": "patient_name_blind",
        "patients.patient_live WHERE phone_blind_index = '\\x00'": "patient_phone_blind",
        f"providers.provider_live WHERE specialty_id = {one}": "provider_search",
        f"bookings.appointment_live WHERE provider_id = {one} AND status = 'confirmed' "
        "AND appointment_at > now() ORDER BY appointment_at": "appointment_upcoming",
    }
    async with app.transaction():
        await app.execute("SET LOCAL enable_seqscan = off")
        for lookup, index in lookups.items():
            plan = await app.fetch(f"EXPLAIN SELECT * FROM {lookup}")
            assert any(index in row[0] for row in plan), (lookup, plan)
