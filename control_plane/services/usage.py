"""What may be asked about usage: a tenant's over time, its share of the server, what is inside."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.adapters import server_usage, table_usage
from control_plane.adapters.postgres_server import connect
from control_plane.adapters.server_usage import Statement
from control_plane.adapters.table_usage import TableUsage
from control_plane.catalog import databases, disturbances, servers, usage
from control_plane.catalog.audit import Caller
from control_plane.catalog.disturbances import Disturbance
from control_plane.catalog.pool import Connection
from control_plane.catalog.usage import Bucket
from control_plane.domain.errors import NotFound
from control_plane.domain.tenants import Tenant
from control_plane.domain.usage import Grain, Usage, grain_for, share, total
from control_plane.services.addresses import server_address
from control_plane.services.audit_seals import inside
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

HOURS = 24
MOST_HOURS = 400 * 24
# What a share is told of, by the field of Usage that is compared.
RESOURCES = {
    "time": "busy_ms",
    "rows_written": "rows_written",
    "rows_read": "rows_read",
    "blocks_read": "blocks_read",
    "temp": "temp_bytes",
}
_SESSION_NAME = "cp:usage-look"
_MOST_TABLES = 50
_MOST_STATEMENTS = 10


class TenantUsage(msgspec.Struct, frozen=True):
    """A tenant since ``since``, in buckets of ``grain`` minutes; idle ones are left out.

    ``shares`` are those of its server's use in the same time, from 0 to 1, by resource.
    """

    tenant: Tenant
    since: dt.datetime
    until: dt.datetime
    grain: Grain
    buckets: list[Bucket]
    total: Usage
    of_server: Usage
    shares: dict[str, float]
    size_bytes: int | None
    sized_at: dt.datetime | None
    disturbance: Disturbance | None


class Inside(msgspec.Struct, frozen=True):
    """Looked up in the database just now. ``statements`` is ``None`` where nobody counts them."""

    tenant: Tenant
    tables: TableUsage
    statements: list[Statement] | None


async def usage_of(
    db: Connection, caller: Caller, slug_or_id: str, *, hours: float = HOURS
) -> TenantUsage:
    """What a tenant used in the last ``hours``, wherever its database was.

    Raises:
        NotFound: there is no such tenant for this caller.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    until = await usage.now(db)
    span = dt.timedelta(hours=hours)
    grain, since = grain_for(span), until - span
    buckets = await usage.series(db, [tenant.id], since=since, grain=grain)
    server_id, size = await _place(db, tenant)
    of_server = Usage()
    if server_id is not None:
        of_server = total(
            one.usage for one in await usage.series(db, [server_id], since=since, grain=grain)
        )
    used = total(one.usage for one in buckets)
    return TenantUsage(
        tenant=tenant,
        since=since,
        until=until,
        grain=grain,
        buckets=buckets,
        total=used,
        of_server=of_server,
        shares={
            name: share(getattr(used, field), getattr(of_server, field))
            for name, field in RESOURCES.items()
        },
        size_bytes=size[0] if size else None,
        sized_at=size[1] if size else None,
        disturbance=await disturbances.open_one(db, tenant.id),
    )


async def look_inside(ports: Ports, caller: Caller, slug_or_id: str) -> Inside:
    """The tables of a tenant's database, and the statements that took most time, as of now.

    Raises:
        NotFound: there is no such tenant, or it has no database.
        ServerUnavailable, ServerRefused, TenantMismatch: see ``audit_seals.inside``.
    """
    async with ports.catalog.connection() as db:
        tenant = await find_tenant(db, caller, slug_or_id)
        if tenant.server is None:
            raise NotFound(f"{tenant.slug} is {tenant.state} and has no database to look into")
        database = await databases.primary(db, tenant.id)
        server = await servers.get(db, database.server_id)
    async with inside(ports, database, _SESSION_NAME) as connection:
        tables = await table_usage.read_tables(connection, _MOST_TABLES)
    admin = await connect(server_address(ports.keyring, server), application_name=_SESSION_NAME)
    try:
        statements = await server_usage.slow_statements(admin, database.name, _MOST_STATEMENTS)
    finally:
        admin.terminate()
    return Inside(tenant, tables, statements)


async def _place(
    db: Connection, tenant: Tenant
) -> tuple[UUID | None, tuple[int, dt.datetime] | None]:
    if tenant.server is None:
        return None, None
    database = await databases.primary(db, tenant.id)
    return database.server_id, await usage.size_of(db, tenant.id)
