"""Compiled revisions on a real clinic: one transaction each, twice is once, and who may do what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from control_plane.adapters import migrator_lease, tenant_migration
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.revisions import Revision, Segment
from control_plane.adapters.tenant_migration import Patience, Sessions
from control_plane.domain.errors import LockTimeout, RevisionFailed, SchemaMismatch, ServerRefused
from tests.integration.tenant_server.clinic import REVISION, Clinic, Place, provision, sqlstate

RECORD = "UPDATE public.alembic_version SET version_num = 'next'"
PATIENCE = Patience(lock=0.5, statement=10.0)


@pytest.fixture
async def clinic(place: Place) -> Clinic:
    """A clinic that one test may change."""
    return await provision(place)


def revision(*statements: str, outside: bool = False, privileged: bool = False) -> Revision:
    """A revision ``next`` after the clinic's head."""
    segments: tuple[Segment, ...] = (Segment((*statements, RECORD), transactional=True),)
    if outside:
        segments = (
            Segment(statements, transactional=False),
            Segment((RECORD,), transactional=True),
        )
    return Revision(
        id="next",
        down=REVISION,
        title="A test",
        privileged=privileged,
        runs_python=False,
        segments=segments,
        overrides={},
    )


@asynccontextmanager
async def migrating(clinic: Clinic) -> AsyncIterator[Sessions]:
    """The migrator's session, let in for the moment, and an administrator's."""
    server = clinic.place.server
    admin = await server.admin()
    password = await migrator_lease.open_migrators(admin, [clinic.roles])
    inside = await server.admin(clinic.database)

    async def administrator() -> Connection:
        return inside

    owner = await migrator_lease.connect_as_owner(
        server.address(),
        clinic.database,
        clinic.roles,
        password,
        "cp:test:1",
        tenant_migration.session_settings(PATIENCE),
    )
    try:
        yield Sessions(owner, administrator, clinic.roles)
    finally:
        owner.terminate()
        await migrator_lease.close_migrators(admin, [clinic.roles])
        await inside.close()
        await admin.close()


async def test_a_revision_is_applied_once_however_often_it_is_asked_for(clinic: Clinic) -> None:
    wanted = revision("ALTER TABLE providers.provider ADD COLUMN room text")
    async with migrating(clinic) as sessions:
        for _ in range(2):
            await tenant_migration.apply(sessions, wanted, PATIENCE)
        assert await tenant_migration.read_revision(sessions.owner) == "next"
        owner = await sessions.owner.fetchval(
            """SELECT pg_get_userbyid(relowner) FROM pg_class
               WHERE oid = 'providers.provider'::regclass"""
        )
        assert owner == clinic.roles.owner


async def test_a_revision_that_fails_leaves_nothing_and_says_why_without_values(
    clinic: Clinic,
) -> None:
    wanted = revision(
        "CREATE TABLE public.half (id int)",
        "INSERT INTO public.half VALUES (1), (1)",
        "ALTER TABLE public.half ADD CONSTRAINT half_once UNIQUE (id)",
    )
    async with migrating(clinic) as sessions:
        with pytest.raises(
            RevisionFailed, match=r"revision next \(A test\) failed.*23505"
        ) as caught:
            await tenant_migration.apply(sessions, wanted, PATIENCE)
        assert "(1)" not in str(caught.value)
        assert not caught.value.retryable
        assert await tenant_migration.read_revision(sessions.owner) == REVISION
        assert await sessions.owner.fetchval("SELECT to_regclass('public.half')") is None


async def test_a_lock_is_waited_for_only_briefly_and_the_queue_behind_it_moves_on(
    clinic: Clinic,
) -> None:
    wanted = revision("ALTER TABLE providers.provider ADD COLUMN room text")
    async with migrating(clinic) as sessions, clinic.inside() as other:
        held = other.transaction()
        await held.start()
        await other.execute("LOCK TABLE providers.provider IN ACCESS SHARE MODE")
        with pytest.raises(LockTimeout) as caught:
            await tenant_migration.apply(sessions, wanted, PATIENCE)
        assert caught.value.retryable
        await held.rollback()
        await tenant_migration.apply(sessions, wanted, PATIENCE)


async def test_two_at_once_apply_it_once(clinic: Clinic) -> None:
    wanted = revision("ALTER TABLE providers.provider ADD COLUMN room text")
    async with migrating(clinic) as one, migrating(clinic) as two:
        patient = Patience(lock=10.0, statement=10.0)
        await asyncio.gather(*(tenant_migration.apply(s, wanted, patient) for s in (one, two)))
        assert await tenant_migration.read_revision(one.owner) == "next"


async def test_another_revision_than_the_one_before_is_refused(clinic: Clinic) -> None:
    wanted = revision("SELECT 1")
    async with clinic.inside() as admin:
        await admin.execute("UPDATE public.alembic_version SET version_num = 'elsewhere'")
    async with migrating(clinic) as sessions:
        with pytest.raises(SchemaMismatch, match="elsewhere"):
            await tenant_migration.apply(sessions, wanted, PATIENCE)


async def test_an_index_left_invalid_is_dropped_and_made_again(clinic: Clinic) -> None:
    statement = (
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_room ON providers.provider (is_available)"
    )
    wanted = revision(statement, outside=True)
    async with migrating(clinic) as sessions, clinic.inside() as admin:
        await admin.execute(statement)
        await admin.execute(
            """UPDATE pg_index SET indisvalid = false
               WHERE indexrelid = 'providers.by_room'::regclass"""
        )
        for _ in range(2):
            await tenant_migration.apply(sessions, wanted, PATIENCE)
        assert await admin.fetchval(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'providers.by_room'::regclass"
        )
        assert await tenant_migration.read_revision(admin) == "next"


async def test_work_outside_of_a_transaction_that_was_done_is_not_done_again(
    clinic: Clinic,
) -> None:
    statement = "CREATE INDEX CONCURRENTLY by_room ON providers.provider (is_available)"
    async with migrating(clinic) as sessions, clinic.inside() as admin:
        await admin.execute(statement)
        before = await admin.fetchval("SELECT 'providers.by_room'::regclass::oid")
        await tenant_migration.apply(sessions, revision(statement, outside=True), PATIENCE)
        assert await admin.fetchval("SELECT 'providers.by_room'::regclass::oid") == before
        await tenant_migration.apply(sessions, revision(statement, outside=True), PATIENCE)


async def test_the_migrator_is_shut_out_but_for_its_lease_and_is_nobody_but_the_owner(
    clinic: Clinic,
) -> None:
    async with migrating(clinic) as sessions:
        for become in ("cp_dbowner", clinic.roles.auditor, "postgres", clinic.roles.app):
            assert await sqlstate(sessions.owner, f"SET ROLE {become}") in ("42501", "22023")
        assert await sqlstate(sessions.owner, "CREATE ROLE intruder") == "42501"
    admin = await clinic.place.server.admin()
    password = await migrator_lease.open_migrators(admin, [clinic.roles])
    await migrator_lease.close_migrators(admin, [clinic.roles])
    await admin.close()
    with pytest.raises(ServerRefused):
        await migrator_lease.connect_as_owner(
            clinic.place.server.address(), clinic.database, clinic.roles, password, "cp:test:1"
        )


async def test_a_trap_set_by_the_tenant_never_runs_as_more_than_the_owner(clinic: Clinic) -> None:
    """S-08: an event of the migration calls a function that tries to be the administrator."""
    async with clinic.inside() as admin:
        await admin.execute(
            """CREATE TABLE public.trap (who text, privileged boolean);
                CREATE FUNCTION public.spring() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    SET ROLE none; RESET SESSION AUTHORIZATION;
                    INSERT INTO public.trap SELECT current_user, rolsuper FROM pg_roles
                     WHERE rolname = current_user;
                    RETURN NEW;
                END $$;
                CREATE TABLE public.bait (id int);
                CREATE TRIGGER spring AFTER INSERT ON public.bait
                    FOR EACH ROW EXECUTE FUNCTION public.spring();
            """
        )
        await admin.execute(
            f"""GRANT INSERT ON public.trap TO {clinic.roles.migrator};
                GRANT USAGE ON SCHEMA public TO {clinic.roles.migrator};
                ALTER TABLE public.bait OWNER TO {clinic.roles.owner};
                ALTER TABLE public.trap OWNER TO {clinic.roles.owner};"""
        )
    async with migrating(clinic) as sessions:
        await sessions.owner.execute("INSERT INTO public.bait VALUES (1)")
    async with clinic.inside() as admin:
        rows = await admin.fetch("SELECT who, privileged FROM public.trap")
        assert rows
        assert not any(row["privileged"] for row in rows)
        assert {row["who"] for row in rows} <= {clinic.roles.owner, clinic.roles.migrator}


async def test_a_restore_point_is_named_in_the_wal(clinic: Clinic) -> None:
    admin = await clinic.place.server.admin()
    lsn = await tenant_migration.mark_restore_point(admin, "tenantry:op_test")
    later = await admin.fetchval("SELECT pg_current_wal_insert_lsn() >= $1::text::pg_lsn", lsn)
    assert later is True
    await admin.close()


async def test_a_lacking_role_is_noticed(clinic: Clinic) -> None:
    admin = await clinic.place.server.admin()
    assert await migrator_lease.lacking_roles(admin, [clinic.roles]) == []
    async with clinic.inside() as inside:
        with pytest.raises(asyncpg.DependentObjectsStillExistError):
            await inside.execute(f"DROP ROLE {clinic.roles.reader}")
        await inside.execute(f"DROP OWNED BY {clinic.roles.reader}")
        await inside.execute(f"DROP ROLE {clinic.roles.reader}")
    assert await migrator_lease.lacking_roles(admin, [clinic.roles]) == [clinic.roles]
    await admin.close()
