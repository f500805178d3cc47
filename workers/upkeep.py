"""The tick that looks after tenants' databases: audit log sealed, reports refreshed.

It runs late, twice or not at all without harm: what it did not do now it does the next time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from control_plane.adapters import tenant_audit, tenant_upkeep
from control_plane.adapters.postgres_server import Connection
from control_plane.catalog import moves, upkeep
from control_plane.catalog.databases import Database
from control_plane.domain.errors import TenantryError
from control_plane.services.audit_seals import auditing, inside, seal_and_anchor
from control_plane.services.ports import Ports

_log = structlog.get_logger(__name__)
_SESSION_NAME = "cp:upkeep"
_TAKEN_AT_ONCE = 16
_TENDED_AT_ONCE = 4
# So that refreshing reports is never what the server's tenants wait for.
_TENDED_PER_SERVER = 2


async def tend_databases(ports: Ports) -> None:
    """Look after the databases whose turn it is, a few at a time."""
    async with ports.catalog.transaction() as db:
        due = await upkeep.take_due(db, limit=_TAKEN_AT_ONCE, minutes=ports.settings.upkeep_minutes)
    turn = asyncio.Semaphore(_TENDED_AT_ONCE)
    on_server = {database.server_id: asyncio.Semaphore(_TENDED_PER_SERVER) for database in due}

    async def tend(database: Database) -> None:
        async with on_server[database.server_id], turn:
            await _tend(ports, database)

    await asyncio.gather(*(tend(database) for database in due))


async def _tend(ports: Ports, database: Database) -> None:
    problems: list[str] = []
    try:
        async with inside(ports, database, _SESSION_NAME) as connection:
            problems += await _look_after(ports, connection, database)
    except TenantryError as error:
        problems.append(error.message)
    problem = "; ".join(problems) or None
    if problem is not None:
        _log.warning("upkeep_problem", database=database.name, problem=problem)
    async with ports.catalog.connection() as db:
        await upkeep.record_done(db, database.id, problem)


async def _look_after(ports: Ports, connection: Connection, database: Database) -> list[str]:
    """Each part for itself: a view that cannot be refreshed keeps no log from being sealed."""
    problems: list[str] = []
    parts: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: _seal(ports, database),
        lambda: _make_partitions(ports, database),
        lambda: tenant_upkeep.point_read_audit(connection, database.roles, database.name),
    )
    for part in parts:
        try:
            await part()
        except TenantryError as error:
            problems.append(error.message)
    return problems + await tenant_upkeep.refresh_views(connection, database.roles)


async def _seal(ports: Ports, database: Database) -> None:
    async with auditing(ports, database, _SESSION_NAME) as auditor:
        await seal_and_anchor(ports, auditor, database)


async def _make_partitions(ports: Ports, database: Database) -> None:
    """Not while a move can be reversed: the old server would not know the new partition."""
    async with ports.catalog.connection() as db:
        if database.tenant_id and await moves.open_one(db, database.tenant_id) is not None:
            return
    async with auditing(ports, database, _SESSION_NAME) as auditor:
        if await tenant_audit.has_audit_log(auditor, database.roles):
            await tenant_audit.ensure_partitions(auditor)


TICKS: Mapping[str, Callable[[Ports], Awaitable[None]]] = {tend_databases.__name__: tend_databases}
