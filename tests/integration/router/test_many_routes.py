"""What a full cell costs: printed, for the numbers are this machine's."""

import json
import statistics
import time
from uuid import UUID

from control_plane.adapters.clock import new_id
from control_plane.adapters.scram import new_password, verifier
from control_plane.catalog import routes
from control_plane.catalog.pool import Connection
from control_plane.domain.names import database_name
from tests.integration.router.processes import PoolerHome
from tests.integration.router.world import Clinic, World, eventually

CELL = "cell-full"
TENANTS = 1_000


async def test_a_thousand_tenants_in_one_cell(world: World) -> None:
    home = PoolerHome(world.base, "p-full", CELL, world.environment)
    home.prepare()
    home.start_pgbouncer()
    try:
        clinic = await world.clinic("busy-clinic", cell=CELL)
        await world.publish(clinic)
        async with world.catalog.transaction() as db:
            await _crowd(db, clinic)
        started = time.monotonic()
        home.start_agent()
        await eventually(lambda: _served(world))
        print(f"{TENANTS} tenants: agent start to ack {(time.monotonic() - started) * 1000:.0f} ms")
        took = []
        for _ in range(5):
            await world.new_password(clinic, "b")
            took.append(await world.serving(clinic, await world.touch(clinic)))
        reloads = _reloads(home)
        print(
            f"{TENANTS} tenants: RELOAD {statistics.median(reloads):.1f} ms, "
            f"a new verifier to ack {statistics.median(took) * 1000:.0f} ms"
        )
        assert (await world.pooler("p-full")).served_entries == 2 * (TENANTS + 1)
        async with await world.connect(clinic, home, slot="b") as client:
            await client.execute("SELECT 1")
    finally:
        home.stop()


def _reloads(home: PoolerHome) -> list[float]:
    """Milliseconds of each RELOAD that the agent logged."""
    lines = [json.loads(line) for line in home.agent.log.read_text().splitlines()]
    return [float(line["reload_ms"]) for line in lines if line["event"] == "served"]


async def _served(world: World) -> bool:
    async with world.catalog.connection() as db:
        entries = await db.fetchval("SELECT served_entries FROM poolers WHERE name = 'p-full'")
    return bool(entries and entries > TENANTS)


async def _crowd(db: Connection, clinic: Clinic) -> None:
    """Tenants that exist in the catalog only, each published with a login."""
    ids = [(new_id(), new_id()) for _ in range(TENANTS)]
    made = verifier(new_password())
    version = await routes.next_version(db, clinic.cell_id)
    server_id: UUID = await db.fetchval(
        "SELECT server_id FROM databases WHERE id = $1", clinic.database_id
    )
    await db.executemany("INSERT INTO role_sets (id) VALUES ($1)", [(one,) for one, _ in ids])
    await db.executemany(
        """INSERT INTO credentials (role_set_id, slot, version, sealed, verifier, state)
           VALUES ($1, 'a', 1, 'x', $2, 'active')""",
        [(one, made) for one, _ in ids],
    )
    await db.executemany(
        """INSERT INTO tenants (id, slug, name, tier, cell_id, placement_reason)
           VALUES ($1, $2, $2, 'standard', $3, 'test')""",
        [(one, f"crowd-{number}", clinic.cell_id) for number, (one, _) in enumerate(ids)],
    )
    await db.executemany(
        """INSERT INTO databases (id, role_set_id, tenant_id, server_id, name,
               template_fingerprint, purpose)
           VALUES ($1, $2, $2, $3, $4, '0123456789abcdef', 'primary')""",
        [(other, one, server_id, database_name(other)) for one, other in ids],
    )
    await db.executemany(
        """INSERT INTO routes (tenant_id, cell_id, alias, database_id, state, pool_size,
               session_pool_size, generation, version, endpoint_host, endpoint_port)
           VALUES ($1, $2, $3, $4, 'published', 5, 5, 1, $5, '127.0.0.1', 1)""",
        [
            (one, clinic.cell_id, f"crowd-{number}", other, version)
            for number, (one, other) in enumerate(ids)
        ],
    )
