"""S-10 and 2.9: the right database, the right actor, and no request lost to a rotation."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from deploy.local.stack import Stack
from tenant_template.client import ControlPlane, Tenancy, TenantMismatch, connect_sync
from tenant_template.client.connect import Driver as SqlDriver
from tenant_template.client.control_plane import Dsn, Pool
from tests.driver import Driver
from tests.integration.clinic_app.clinic import find_patient_by_email, register_patient
from tests.integration.clinic_app.conftest import MANY, Clinic, connected, new_clinic

USERS = 40
TURNS = 6
ACTOR = text("SELECT current_setting('app.user_id', true)")


@dataclass(frozen=True)
class Crossed(ControlPlane):
    """The keys of one tenant and the DSN of another, as a mistaken route would give."""

    other: ControlPlane | None = field(default=None)

    def dsn(self, pool: Pool) -> Dsn:
        assert self.other is not None
        return self.other.dsn(pool)


def crossed(pair: tuple[Clinic, Clinic]) -> Clinic:
    own, other = (one.control_plane for one in pair)
    plane = Crossed(own.url, own.token, own.tenant, other=other)
    return Clinic(own.tenant, plane, pair[0].server, pair[0].database)


async def test_another_tenants_database_is_refused_at_once(
    pair: tuple[Clinic, Clinic], sql_driver: SqlDriver, pool: Pool
) -> None:
    async with connected(crossed(pair), sql_driver, pool) as tenancy:
        for _ in range(2):
            with pytest.raises(TenantMismatch, match="belongs to"):
                async with tenancy.acting_as("ada"):
                    pytest.fail("the block was entered")


async def test_threads_are_refused_as_well(pair: tuple[Clinic, Clinic]) -> None:
    tenancy = await asyncio.to_thread(connect_sync, crossed(pair).control_plane)
    with pytest.raises(TenantMismatch):
        await asyncio.to_thread(tenancy.engine.connect)
    tenancy.close()


async def test_a_database_that_changes_behind_the_pooler_is_noticed(
    clinic: Clinic, sql_driver: SqlDriver
) -> None:
    """The connection was checked when it was made; the next transaction is checked again."""
    admin = await clinic.inside()
    rename = "UPDATE cp_meta.identity SET tenant_id = $1"
    async with connected(clinic, sql_driver) as tenancy:
        async with tenancy.acting_as("ada") as session:
            await session.execute(ACTOR)
        try:
            await admin.execute(rename, uuid4())
            with pytest.raises(TenantMismatch):
                async with tenancy.acting_as("ada") as session:
                    await register_patient(session, "in the wrong database")
        finally:
            await admin.execute(rename, tenancy.tenant_id)
            await admin.close()
        async with tenancy.acting_as("ada") as session:
            await session.execute(ACTOR)


async def test_actors_never_see_each_other(clinic: Clinic, sql_driver: SqlDriver) -> None:
    """More clients than server connections: every one of these is shared by many users."""
    made: dict[UUID, str] = {}

    async def work(tenancy: Tenancy, user: str) -> None:
        for turn in range(TURNS):
            async with tenancy.acting_as(user, uuid4()) as session:
                patient = await register_patient(
                    session, user, email=f"{user}.{turn}@{clinic.slug}"
                )
                assert (await session.execute(ACTOR)).scalar_one() == user
                made[patient.id] = user
            async with tenancy.sessions.begin() as session:
                assert (await session.execute(ACTOR)).scalar_one() in (None, "")

    async with connected(clinic, sql_driver, engine_options=MANY) as tenancy:
        prefix = uuid4().hex
        await asyncio.gather(*(work(tenancy, f"{prefix}-{number}") for number in range(USERS)))
    admin = await clinic.inside()
    rows = await admin.fetch(
        """SELECT pk, actor, request_id FROM audit.audit_log
           WHERE rel = 'patients.patient' AND op = 'I' AND actor LIKE $1 || '-%'""",
        prefix,
    )
    await admin.close()
    assert {UUID(row["pk"]): row["actor"] for row in rows} == made
    assert len({row["request_id"] for row in rows}) == len(rows) == USERS * TURNS


@dataclass
class Load:
    """Users who work without pause; every failure is kept."""

    tenancy: Tenancy
    over: bool = False
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    async def user(self, name: str) -> None:
        turn = 0
        while not self.over:
            turn += 1
            email = f"{name}.{turn}@load.example"
            try:
                async with self.tenancy.acting_as(name) as session:
                    await register_patient(session, name, email=email)
                async with self.tenancy.acting_as(name) as session:
                    assert await find_patient_by_email(session, email) is not None
                    login = await session.scalar(text("SELECT session_user"))
            except Exception as error:  # noqa: BLE001 - every failure counts
                self.failures.append(f"{type(error).__name__}: {error}")
            else:
                self.done[str(login)] += 1


@pytest.fixture
async def own_clinic(driver: Driver, stack: Stack) -> Clinic:
    """A clinic for one test, which changes its credentials."""
    return await new_clinic(driver, stack)


async def ended(clinic: Clinic, login: str) -> None:
    """Wait until nobody can log in with it any more, and whoever was is out."""
    admin = await clinic.inside()
    question = """SELECT rolcanlogin
                      OR EXISTS (SELECT FROM pg_stat_activity WHERE usename = rolname)
                  FROM pg_roles WHERE rolname = $1"""
    async with asyncio.timeout(60):
        while await admin.fetchval(question, login):
            await asyncio.sleep(0.1)
    await admin.close()


async def test_a_rotation_under_load_loses_nothing(
    own_clinic: Clinic, driver: Driver, sql_driver: SqlDriver
) -> None:
    async with connected(own_clinic, sql_driver, max_age_seconds=1) as tenancy:
        load = Load(tenancy)
        users = [asyncio.create_task(load.user(f"user-{number}")) for number in range(8)]
        await asyncio.sleep(1)
        (first,) = load.done
        await driver.run(own_clinic.slug, "rotate", grace_seconds=5)
        await ended(own_clinic, first)
        old = load.done[first]
        await asyncio.sleep(1)
        load.over = True
        await asyncio.gather(*users)
    assert load.failures == []
    assert load.done[first] == old > 0
    assert len(load.done) == 2


async def test_whoever_slept_through_the_grace_wakes_up_with_the_new_login(
    own_clinic: Clinic, driver: Driver, sql_driver: SqlDriver, pool: Pool
) -> None:
    """A pooled connection is dead, the DSN in hand is refused: both are mended on the way.

    Not on the transaction endpoint: there a client whose login has ended is left waiting by
    PgBouncer for ``query_wait_timeout``, so that this one is closed first.
    """
    login = text("SELECT session_user::text")
    async with connected(own_clinic, sql_driver, pool) as tenancy:
        async with tenancy.acting_as("ada") as session:
            first = await session.scalar(login)
        await driver.run(own_clinic.slug, "rotate", grace_seconds=1)
        await ended(own_clinic, str(first))
        if pool == "transaction":
            await tenancy.engine.dispose()

        async def work() -> object:
            async with tenancy.acting_as("ada") as session:
                return await session.scalar(login)

        second = await asyncio.gather(*(work() for _ in range(8)))
    assert len(set(second)) == 1
    assert second[0] != first
