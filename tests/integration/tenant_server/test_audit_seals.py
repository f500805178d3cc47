"""Sealing, anchoring and verifying a clinic's audit log, and the upkeep that does it."""

# ruff: noqa: S608 - the numbers in the SQL are this test's own
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from control_plane.adapters import clock, tenant_audit, tenant_upkeep
from control_plane.adapters.keyring import Keyring
from control_plane.adapters.postgres_server import Connection
from control_plane.bootstrap import make_ports
from control_plane.catalog import databases, operations, routes, servers, tenants, upkeep
from control_plane.catalog.audit import Caller
from control_plane.catalog.databases import Database
from control_plane.catalog.migrate import migrate
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.servers import Server
from control_plane.catalog.tenants import NewRow
from control_plane.config import Settings
from control_plane.domain.audit_chain import Anchor
from control_plane.domain.errors import NotFound
from control_plane.domain.keys import Principal
from control_plane.domain.plans import PLANS
from control_plane.services.addresses import seal_admin_password
from control_plane.services.audit_seals import Verification, end_problem, recompute, verify
from control_plane.services.ports import Ports
from tests.integration.tenant_server.clinic import REVISION, TEMPLATE, Clinic, Place, provision
from tests.integration.tenant_server.postgres_fixture import ADMIN
from workers.upkeep import tend_databases

AUDITOR = Caller(Principal(clock.new_id(), "auditor", frozenset({"auditor"})))
HOUR = 3600.0
CITIES = """INSERT INTO public.city (country_code, region, name)
            SELECT 'CH', 'ZH', gen_random_uuid()::text FROM generate_series(1, $1::int)"""
UNLOCK = "ALTER TABLE {table} DISABLE TRIGGER USER"


@pytest.fixture(scope="module")
async def ports(place: Place, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ports]:
    """Ports on a catalog of their own, on the tenants' server; every turn comes at once."""
    home: Path = tmp_path_factory.mktemp("home")
    name = f"catalog_{uuid4().hex}"
    admin = await place.server.admin()
    await admin.execute(f"CREATE DATABASE {name}")
    settings = Settings(
        home=home,
        catalog_dsn=f"postgresql://{ADMIN}@127.0.0.1:{place.server.port}/{name}?sslmode=disable",
        catalog_password=place.server.password,
        redis_url="redis://127.0.0.1:1/0",
        redis_password=None,
        keyring_file=home / "keys" / "root.keys",
        server_networks=(),
        templates={"clinic": TEMPLATE},
        upkeep_minutes=0,
    )
    migrate(settings)
    Keyring.create(settings.keyring_file)
    ports = make_ports(settings)
    await ports.catalog.open(max_size=4)
    yield ports
    await ports.catalog.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def clinic(place: Place, ports: Ports) -> AsyncIterator[Clinic]:
    """A clinic that the catalog knows as an active tenant; nothing was sealed yet."""
    clinic = await provision(place)
    await _record(ports, clinic)
    yield clinic
    async with ports.catalog.connection() as db:
        await db.execute("UPDATE databases SET purpose = 'condemned'")


@pytest.fixture
async def inside(clinic: Clinic) -> AsyncIterator[Connection]:
    async with clinic.inside() as connection:
        yield connection


async def _record(ports: Ports, clinic: Clinic) -> None:
    key = clinic.roles.key
    async with ports.catalog.transaction() as db:
        server_id = await _server_id(ports, clinic)
        cell = await routes.ensure_cell(db, clock.new_id(), "cell-1")
        await databases.insert_role_set(db, key)
        row = NewRow(
            key, _slug(clinic), "A clinic", "standard", "clinic", None, {}, cell.id, "test"
        )
        await tenants.insert(db, row)
        await tenants.change_state(db, key, expected="provisioning", wanted="active")
        database = Database(
            id=key,
            role_set_id=key,
            tenant_id=key,
            server_id=server_id,
            name=clinic.database,
            template="clinic",
            template_fingerprint="0" * 16,
            schema_revision=REVISION,
            generation=1,
            purpose="primary",
            created_at=clock.now(),
        )
        await databases.insert(db, database)


async def _server_id(ports: Ports, clinic: Clinic) -> UUID:
    async with ports.catalog.transaction() as db:
        known = await servers.every(db)
        if known:
            return known[0].id
        server_id = clock.new_id()
        password = clinic.place.server.password.reveal()
        server = Server(
            id=server_id,
            name="pg-a",
            host="127.0.0.1",
            hostaddr="127.0.0.1",
            port=clinic.place.server.port,
            admin_login=ADMIN,
            sealed_password=seal_admin_password(ports.keyring, server_id, password),
            tls="disable",
            ca_pem=None,
            system_identifier=clinic.place.system_identifier,
            version_num=150020,
            region=None,
            tier=None,
            labels={},
            capacity=100,
            placed=0,
            state="enrolling",
            preflight=[],
            reachable=True,
            checked_at=clock.now(),
            problem=None,
            created_at=clock.now(),
        )
        await servers.insert(db, server)
        return server_id


def _slug(clinic: Clinic) -> str:
    return f"c{clinic.roles.key.hex[:20]}"


async def anchored(ports: Ports, clinic: Clinic) -> dict[int, Anchor]:
    async with ports.catalog.connection() as db:
        return await upkeep.anchors(db, clinic.roles.key)


async def problem_of(ports: Ports, clinic: Clinic) -> str | None:
    async with ports.catalog.connection() as db:
        row = await db.fetchrow("SELECT * FROM databases WHERE id = $1", clinic.roles.key)
    assert row is not None
    assert row["upkeep_done_at"] is not None
    return str(row["upkeep_problem"]) if row["upkeep_problem"] else None


async def test_upkeep_seals_anchors_and_refreshes(
    ports: Ports, clinic: Clinic, inside: Connection
) -> None:
    age = "SELECT max(refreshed_at) FROM reports.marketplace_health"
    async with inside.transaction():
        specialty = await inside.fetchval(
            "INSERT INTO public.specialty (name) VALUES ('s') RETURNING id"
        )
        await inside.execute(CITIES, 1)
        await inside.execute(
            """INSERT INTO providers.provider (display_name, specialty_id, city_id)
               SELECT 'p', $1, id FROM public.city""",
            specialty,
        )
    await tend_databases(ports)
    assert await problem_of(ports, clinic) is None
    first = await inside.fetchval(age)
    assert first is not None
    await tend_databases(ports)
    assert await inside.fetchval(age) > first
    assert [a.rows for a in (await anchored(ports, clinic)).values()] == [3]
    assert await verify(ports, AUDITOR, _slug(clinic)) == Verification(
        _slug(clinic), blocks=1, rows=3, anchored=1, waiting=0, differences=[]
    )


async def test_only_what_is_settled_is_sealed(
    ports: Ports, clinic: Clinic, inside: Connection
) -> None:
    """A transaction that is still open may have lower numbers than those that committed."""
    await tend_databases(ports)  # the first time on a cluster waits for writers
    other = await clinic.place.server.admin(clinic.database)
    late = other.transaction()
    await late.start()
    await other.execute(CITIES, 1)
    await inside.execute(CITIES, 2500)
    await tend_databases(ports)
    assert await anchored(ports, clinic) == {}
    await late.commit()
    await other.close()
    await tend_databases(ports)
    found = await anchored(ports, clinic)
    assert [a.rows for a in found.values()] == [1000, 1000, 501]
    verified = await verify(ports, AUDITOR, _slug(clinic))
    assert (verified.rows, verified.waiting, verified.differences) == (2501, 0, [])


async def test_seals_that_a_worker_did_not_live_to_anchor_are_anchored_next_time(
    ports: Ports, clinic: Clinic, inside: Connection
) -> None:
    await inside.execute(CITIES, 3)
    assert await tenant_audit.seal(inside) == 1
    await inside.execute(CITIES, 3)
    await tend_databases(ports)
    assert list(await anchored(ports, clinic)) == [1, 2]


@asynccontextmanager
async def tampering(inside: Connection, *tables: str) -> AsyncIterator[None]:
    """What only a superuser can do; nothing of it stays."""
    transaction = inside.transaction()
    await transaction.start()
    for table in tables or ("audit_log", "audit_log_default", "seal_block", "seal_era"):
        await inside.execute(UNLOCK.format(table=f"audit.{table}"))
    months = await inside.fetch(
        """SELECT inhrelid::regclass::text FROM pg_inherits
            WHERE inhparent = 'audit.audit_log'::regclass"""
    )
    for month in months:
        await inside.execute(UNLOCK.format(table=month[0]))
    yield
    await transaction.rollback()


async def test_every_tampering_of_a_superuser_is_found_and_the_block_named(
    ports: Ports, clinic: Clinic, inside: Connection
) -> None:
    for _ in range(3):
        await inside.execute(CITIES, 4)
        await tend_databases(ports)
    kept = await anchored(ports, clinic)
    assert len(kept) == 3
    seqs = range(kept[2].first_seq, kept[2].last_seq + 1)
    assert (await recompute(inside, kept)).differences == []
    one = f"WHERE seq = {seqs[1]}"
    edits = {
        "UPDATE audit.audit_log SET actor = 'nobody' " + one: "block 2: a row",
        "UPDATE audit.audit_log SET diff = '{}' " + one: "block 2: a row",
        "UPDATE audit.audit_log SET at = at - interval '1 s' " + one: "block 2: a row",
        "DELETE FROM audit.audit_log " + one: f"block 2: row {seqs[1]} was deleted",
        "UPDATE audit.seal_block SET root = block_hash WHERE block = 2": "block 2 was rewritten",
        "UPDATE audit.seal_block SET next_xid = '1' WHERE block = 2": "block 2 was rewritten",
        "DELETE FROM audit.seal_block WHERE block = 2": "block 2 is missing",
        "DELETE FROM audit.seal_block WHERE block = 3": "block 3 is anchored, but",
        "INSERT INTO audit.audit_log (seq, xid, actor, op, rel) OVERRIDING SYSTEM VALUE "
        "VALUES (-1, '3', 'alice', 'U', 'x')": "rows -1 were slipped in",
    }
    for edit, told in edits.items():
        async with tampering(inside):
            await inside.execute(edit)
            differences = (await recompute(inside, kept)).differences
            assert any(found.startswith(told) for found in differences), (edit, differences)
    assert (await recompute(inside, kept)).differences == []


async def test_a_chain_that_was_rewritten_well_is_caught_by_its_anchors(
    ports: Ports, clinic: Clinic, inside: Connection
) -> None:
    await inside.execute(CITIES, 5)
    await tend_databases(ports)
    kept = await anchored(ports, clinic)
    async with tampering(inside):
        await inside.execute("UPDATE audit.audit_log SET actor = 'nobody'")
        await inside.execute("DELETE FROM audit.seal_block; DELETE FROM audit.seal_era")
        assert await inside.fetchval("SELECT count(*) FROM audit.seal()") == 1
        assert (await recompute(inside, {})).differences == []
        assert (await recompute(inside, kept)).differences == [
            "block 1 was rewritten: it is not the block that was anchored"
        ]


async def test_a_forged_chain_is_not_continued(
    ports: Ports, clinic: Clinic, inside: Connection
) -> None:
    await inside.execute(CITIES, 5)
    await tend_databases(ports)
    kept = await anchored(ports, clinic)
    await inside.execute(UNLOCK.format(table="audit.seal_block"))
    await inside.execute("UPDATE audit.seal_block SET block_hash = root")
    await inside.execute(CITIES, 5)
    await tend_databases(ports)
    assert "audit block 1 is not the one that was anchored" in (
        await problem_of(ports, clinic) or ""
    )
    assert await anchored(ports, clinic) == kept
    verified = await verify(ports, AUDITOR, _slug(clinic))
    assert any("block 1 was rewritten" in told for told in verified.differences)


async def test_a_log_that_is_gone_is_told(ports: Ports, clinic: Clinic, inside: Connection) -> None:
    await inside.execute(CITIES, 5)
    await tend_databases(ports)
    await inside.execute("DROP SCHEMA audit CASCADE")
    await tend_databases(ports)
    assert "audit log is gone" in (await problem_of(ports, clinic) or "")
    verified = await verify(ports, AUDITOR, _slug(clinic))
    assert verified.differences == ["the audit log is gone; 1 blocks of it are anchored"]


async def test_the_check_looks_at_the_end_of_the_chain(
    ports: Ports, clinic: Clinic, inside: Connection
) -> None:
    await tend_databases(ports)
    for _ in range(2):
        await inside.execute(CITIES, 5)
        await tend_databases(ports)
    async with ports.catalog.connection() as db:
        last = (await upkeep.last_anchors(db))[clinic.roles.key]

    async def told() -> str | None:
        return await end_problem(inside, clinic.roles, last, HOUR)

    assert await told() is None
    async with tampering(inside):
        await inside.execute("UPDATE audit.seal_block SET block_hash = root")
        assert await told() == "audit block 2 is not the one that was anchored"
    async with tampering(inside):
        await inside.execute("DELETE FROM audit.seal_block")
        assert await told() == "audit block 2 is not the one that was anchored"
    async with tampering(inside):
        await inside.execute("DELETE FROM audit.seal_block WHERE block = 1")
        assert await told() == "2 audit blocks are anchored, the database has 1"
    async with tampering(inside):
        await inside.execute(CITIES, 1)
        assert await told() is None
        await inside.execute("UPDATE audit.audit_log SET at = at - interval '61 min'")
        assert await told() == "the audit log has not been sealed for 61 minutes"
    async with tampering(inside):
        await inside.execute("DROP SCHEMA audit CASCADE")
        assert await told() == "the audit log is gone; 2 blocks of it are anchored"


async def test_a_log_from_another_cluster_is_sealed_whole(
    ports: Ports, clinic: Clinic, inside: Connection
) -> None:
    """After a restore or a move old xids say nothing: new rows may have lower ones."""
    await inside.execute(CITIES, 3)
    await tend_databases(ports)
    await inside.execute(CITIES, 2)  # written there, not sealed there
    await inside.execute(UNLOCK.format(table="audit.seal_era"))
    await inside.execute("UPDATE audit.seal_era SET cluster = 1")
    await inside.execute(
        """INSERT INTO audit.audit_log (xid, actor, op, rel)
           VALUES ('3', 'early on the new cluster', 'U', 'x')"""
    )
    await tend_databases(ports)
    assert [a.rows for a in (await anchored(ports, clinic)).values()] == [3, 3]
    await inside.execute(CITIES, 1)
    await tend_databases(ports)
    verified = await verify(ports, AUDITOR, _slug(clinic))
    assert (verified.blocks, verified.rows, verified.differences) == (3, 7, [])


async def test_a_turn_comes_once_and_never_beside_an_operation(
    ports: Ports, clinic: Clinic
) -> None:
    async with ports.catalog.transaction() as one, ports.catalog.transaction() as two:
        assert [d.id for d in await upkeep.take_due(one, limit=5, minutes=0)] == [clinic.roles.key]
        assert await upkeep.take_due(two, limit=5, minutes=0) == []
    async with ports.catalog.transaction() as db:
        assert await upkeep.take_due(db, limit=5, minutes=15) == []  # new ones rest first
        await upkeep.record_done(db, clinic.roles.key, None)
        assert len(await upkeep.take_due(db, limit=5, minutes=15)) == 1
        assert await upkeep.take_due(db, limit=5, minutes=15) == []
        await db.execute("UPDATE databases SET upkeep_due_at = clock_timestamp()")
        await operations.insert(
            db,
            NewOperation(
                id=clock.new_id(),
                plan=PLANS["suspend"],
                subject=_slug(clinic),
                actor="test",
                tenant_id=clinic.roles.key,
            ),
        )
        assert await upkeep.take_due(db, limit=5, minutes=0) == []


async def test_verification_is_for_tenants_there_are(ports: Ports) -> None:
    with pytest.raises(NotFound, match="no tenant 'nobody'"):
        await verify(ports, AUDITOR, "nobody")


HOSTILE = """
CREATE TABLE public.trap (who text);
CREATE FUNCTION public.spring() RETURNS int LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO public.trap VALUES (current_user);
    RETURN 1;
END $body$;
CREATE FUNCTION public.escape() RETURNS int LANGUAGE plpgsql AS $body$
BEGIN
    RESET ROLE;
    RETURN 1;
END $body$;
CREATE MATERIALIZED VIEW public.spring AS SELECT public.spring() AS n WITH NO DATA;
CREATE MATERIALIZED VIEW public.escape AS SELECT public.escape() AS n WITH NO DATA;
"""


async def test_refreshing_runs_nothing_as_anybody_but_the_owner(
    clinic: Clinic, inside: Connection
) -> None:
    """S-08: a view's functions run with its owner's rights and cannot leave them."""
    async with inside.transaction():
        await inside.execute(f"SET LOCAL ROLE {clinic.roles.owner}")
        await inside.execute(HOSTILE)
    problems = await tenant_upkeep.refresh_views(inside, clinic.roles)
    assert len(problems) == 1
    assert problems[0].startswith("public.escape: ")
    assert "security-restricted operation" in problems[0]
    trapped = await inside.fetch("SELECT DISTINCT who FROM public.trap")
    assert [row["who"] for row in trapped] == [clinic.roles.owner]


async def test_a_view_of_a_view_is_refreshed_after_it_and_never_two_at_once(
    clinic: Clinic, inside: Connection
) -> None:
    async with inside.transaction():
        await inside.execute(f"SET LOCAL ROLE {clinic.roles.owner}")
        await inside.execute(
            """CREATE MATERIALIZED VIEW reports.zz_first AS SELECT clock_timestamp() AS at;
               CREATE MATERIALIZED VIEW reports.aa_second AS SELECT at FROM reports.zz_first"""
        )
    views = await tenant_upkeep.owned_views(inside, clinic.roles)
    names = [view.name for view in views]
    assert names.index("reports.zz_first") < names.index("reports.aa_second")
    concurrently = {view.name for view in views if view.concurrently}
    assert concurrently == set(names) - {"reports.zz_first", "reports.aa_second"}
    at = "SELECT ARRAY[(SELECT at FROM reports.zz_first), (SELECT at FROM reports.aa_second)]"
    before = await inside.fetchval(at)
    async with clinic.inside() as busy, busy.transaction():
        await busy.execute("SELECT pg_advisory_xact_lock(hashtextextended('tenantry:refresh', 0))")
        assert await tenant_upkeep.refresh_views(inside, clinic.roles) == []
        assert await inside.fetchval(at) == before
    assert await tenant_upkeep.refresh_views(inside, clinic.roles) == []
    first, second = await inside.fetchval(at)
    assert first == second > before[0]


async def test_without_pgaudit_nothing_is_pointed_at_it(clinic: Clinic, inside: Connection) -> None:
    assert not await tenant_upkeep.point_read_audit(inside, clinic.roles, clinic.database)
    assert await inside.fetch("SELECT FROM pg_db_role_setting WHERE setrole = 0") == []
