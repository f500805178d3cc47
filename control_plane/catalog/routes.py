"""Routes: the wanted state of every pooler of a cell, versioned by the cell's counter.

Whoever changes a route takes the cell's next version first, which locks the cell's row until
commit: an agent that reads version *v* has therefore seen every change up to *v*.
"""

import datetime as dt
from typing import Any, Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Conflict
from control_plane.domain.names import RoleSet

CHANNEL = "tenantry_routes"
RouteState = Literal["published", "withdrawn"]
# ``all``: both endpoints, once their clients left. ``sessions``: new clients of the session
# endpoint wait, who is in it stays. ``cut``: both, and who is in the session endpoint is cut off.
PauseScope = Literal["all", "sessions", "cut"]


class Route(msgspec.Struct, frozen=True):
    """Where a tenant's alias leads. ``pause_until`` is set while an operation holds it."""

    tenant_id: UUID
    cell_id: UUID
    alias: str
    database_id: UUID
    state: RouteState
    pool_size: int
    session_pool_size: int
    generation: int
    version: int
    endpoint_host: str
    endpoint_port: int
    paused_by: UUID | None
    pause_epoch: int | None
    pause_until: dt.datetime | None


class WantedRoute(msgspec.Struct, frozen=True):
    """One route with everything an agent needs to render it and nothing secret.

    ``logins`` maps login names to SCRAM verifiers; ``pause_seconds`` is what remains of a
    wanted pause on the catalog's clock (``None`` when no pause is wanted).
    """

    tenant_id: UUID
    alias: str
    published: bool
    host: str
    port: int
    tls: str
    database: str
    pool_size: int
    session_pool_size: int
    version: int
    logins: dict[str, str]
    paused_by: UUID | None
    pause_epoch: int | None
    pause_seconds: float | None
    pause_scope: PauseScope | None = None


class Cell(msgspec.Struct, frozen=True):
    """A group of poolers that serve the same tenants."""

    id: UUID
    name: str
    version: int
    tenants: int
    max_tenants: int


_ROUTE = ", ".join(Route.__struct_fields__)


async def ensure_cell(db: Connection, cell_id: UUID, name: str) -> Cell:
    """The cell with this name, made if it is new."""
    await db.execute(
        "INSERT INTO cells (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", cell_id, name
    )
    row = await db.fetchrow(
        "SELECT id, name, version, tenants, max_tenants FROM cells WHERE name = $1", name
    )
    assert row is not None  # noqa: S101 - inserted above and never deleted
    return Cell(**dict(row))


async def cells(db: Connection) -> list[Cell]:
    rows = await db.fetch("SELECT id, name, version, tenants, max_tenants FROM cells ORDER BY name")
    return [Cell(**dict(row)) for row in rows]


async def join_cell(db: Connection) -> UUID:
    """Take a place for one tenant in the emptiest cell that has a pooler.

    Raises:
        Conflict: every cell is full, or none has a pooler.
    """
    cell_id: UUID | None = await db.fetchval(
        """UPDATE cells SET tenants = tenants + 1 WHERE id = (
               SELECT c.id FROM cells c
               WHERE c.tenants < c.max_tenants
                 AND EXISTS (SELECT FROM poolers p WHERE p.cell_id = c.id)
               ORDER BY c.tenants, c.name LIMIT 1 FOR UPDATE)
           RETURNING id"""
    )
    if cell_id is None:
        raise Conflict("no pooler has room for another tenant; start a pooler in a new cell")
    return cell_id


async def leave_cell(db: Connection, cell_id: UUID) -> None:
    await db.execute("UPDATE cells SET tenants = tenants - 1 WHERE id = $1", cell_id)


async def next_version(db: Connection, cell_id: UUID) -> int:
    """Take the cell's next version and tell its agents at commit."""
    version: int = await db.fetchval(
        """WITH bumped AS (
               UPDATE cells SET version = version + 1 WHERE id = $1 RETURNING version)
           SELECT version FROM bumped, pg_notify($2, $3)""",
        cell_id,
        CHANNEL,
        str(cell_id),
    )
    return version


async def find(db: Connection, tenant_id: UUID) -> Route | None:
    row = await db.fetchrow(f"SELECT {_ROUTE} FROM routes WHERE tenant_id = $1", tenant_id)  # noqa: S608 - the struct's own field names
    return Route(**dict(row)) if row else None


class NewRoute(msgspec.Struct, frozen=True):
    """A route about to be published, or published anew."""

    tenant_id: UUID
    cell_id: UUID
    alias: str
    database_id: UUID
    generation: int
    pool_size: int
    session_pool_size: int
    endpoint_host: str
    endpoint_port: int


async def put(db: Connection, route: NewRoute) -> int:
    """Publish a tenant's route, unpaused, at the cell's next version, which is returned."""
    version = await next_version(db, route.cell_id)
    await db.execute(
        """INSERT INTO routes (tenant_id, cell_id, alias, database_id, state, pool_size,
               session_pool_size, generation, version, endpoint_host, endpoint_port)
           VALUES ($1, $2, $3, $4, 'published', $5, $6, $7, $8, $9, $10)
           ON CONFLICT (tenant_id) DO UPDATE SET database_id = excluded.database_id,
               state = excluded.state, pool_size = excluded.pool_size,
               session_pool_size = excluded.session_pool_size,
               generation = excluded.generation, version = excluded.version,
               paused_by = NULL, pause_epoch = NULL, pause_until = NULL, pause_scope = NULL""",
        route.tenant_id,
        route.cell_id,
        route.alias,
        route.database_id,
        route.pool_size,
        route.session_pool_size,
        route.generation,
        version,
        route.endpoint_host,
        route.endpoint_port,
    )
    return version


async def leading_to(db: Connection, database_id: UUID) -> Route | None:
    """The route that leads to this database, published or withdrawn."""
    row = await db.fetchrow(f"SELECT {_ROUTE} FROM routes WHERE database_id = $1", database_id)  # noqa: S608 - the struct's own field names
    return Route(**dict(row)) if row else None


async def touch(db: Connection, route: Route, state: RouteState | None = None) -> int:
    """Make every agent look at this route again, with another state if one is given."""
    version = await next_version(db, route.cell_id)
    await db.execute(
        """UPDATE routes SET version = $2, state = coalesce($3, state) WHERE tenant_id = $1""",
        route.tenant_id,
        version,
        state,
    )
    return version


async def touch_server(db: Connection, server_id: UUID) -> None:
    """``touch`` every route that leads to this server, as its address has changed."""
    cells = await db.fetch(
        """SELECT DISTINCT r.cell_id FROM routes r JOIN databases d ON d.id = r.database_id
           WHERE d.server_id = $1 ORDER BY 1""",
        server_id,
    )
    for row in cells:
        version = await next_version(db, row["cell_id"])
        await db.execute(
            """UPDATE routes r SET version = $3 FROM databases d
               WHERE d.id = r.database_id AND d.server_id = $1 AND r.cell_id = $2""",
            server_id,
            row["cell_id"],
            version,
        )


async def want_pause(
    db: Connection,
    route: Route,
    *,
    operation_id: UUID,
    epoch: int,
    seconds: float,
    scope: PauseScope = "all",
) -> int:
    """Ask every pooler of the cell to pause this tenant for at most ``seconds``."""
    version = await next_version(db, route.cell_id)
    await db.execute("DELETE FROM pause_acks WHERE tenant_id = $1", route.tenant_id)
    await db.execute(
        """UPDATE routes SET version = $2, paused_by = $3, pause_epoch = $4,
                  pause_until = clock_timestamp() + make_interval(secs => $5), pause_scope = $6
           WHERE tenant_id = $1""",
        route.tenant_id,
        version,
        operation_id,
        epoch,
        seconds,
        scope,
    )
    return version


async def end_pause(
    db: Connection, tenant_id: UUID, *, operation_id: UUID, epoch: int | None = None
) -> bool:
    """Ask the poolers to resume if this operation is the one that paused.

    With ``epoch`` a pause that a later worker of the operation began stays.
    """
    route = await find(db, tenant_id)
    if route is None or route.paused_by != operation_id:
        return False
    if epoch is not None and (route.pause_epoch or 0) > epoch:
        return False
    version = await next_version(db, route.cell_id)
    await db.execute(
        """UPDATE routes SET version = $2, paused_by = NULL, pause_epoch = NULL,
                  pause_until = NULL, pause_scope = NULL
           WHERE tenant_id = $1 AND paused_by = $3""",
        tenant_id,
        version,
        operation_id,
    )
    return True


async def ack_pause(
    db: Connection, tenant_id: UUID, pooler_id: UUID, *, operation_id: UUID, epoch: int
) -> None:
    """Record that this pooler holds every client of the tenant, for this very pause."""
    await db.execute(
        """INSERT INTO pause_acks (tenant_id, pooler_id, operation_id, epoch)
           SELECT tenant_id, $2, $3, $4 FROM routes
           WHERE tenant_id = $1 AND paused_by = $3 AND pause_epoch = $4
           ON CONFLICT (tenant_id, pooler_id) DO UPDATE
               SET operation_id = excluded.operation_id, epoch = excluded.epoch,
                   at = clock_timestamp()""",
        tenant_id,
        pooler_id,
        operation_id,
        epoch,
    )


async def stale_pauses(db: Connection) -> list[tuple[UUID, UUID]]:
    """(tenant, operation) of pauses that ran out or whose operation is no longer alive."""
    rows = await db.fetch(
        """SELECT r.tenant_id, r.paused_by FROM routes r
           LEFT JOIN operations o ON o.id = r.paused_by
           WHERE r.paused_by IS NOT NULL AND (r.pause_until < clock_timestamp()
              OR o.state NOT IN ('pending', 'running', 'waiting', 'cancelling'))"""
    )
    return [(row["tenant_id"], row["paused_by"]) for row in rows]


# A pooler that verifies certificates needs the name they were made for; a name that leads
# elsewhere then fails there. Without verification only the address enrolled is trusted (S-28).
_WANTED = """
    SELECT r.tenant_id, r.cell_id, r.alias, r.state = 'published' AS published,
           CASE WHEN s.tls = 'verify-full' THEN s.host ELSE s.hostaddr END AS host, s.port, s.tls,
           d.name AS database, r.pool_size, r.session_pool_size, r.version,
           coalesce((SELECT jsonb_object_agg(c.slot, c.verifier)
                     FROM credentials c WHERE c.role_set_id = r.tenant_id
                       AND c.state <> 'revoked'), '{}') AS logins,
           r.paused_by, r.pause_epoch, r.pause_scope,
           extract(epoch FROM r.pause_until - clock_timestamp())::float8 AS pause_seconds
    FROM routes r
    LEFT JOIN databases d ON d.id = r.database_id
    LEFT JOIN servers s ON s.id = d.server_id
"""


async def wanted(db: Connection, cell_id: UUID, *, newer_than: int) -> list[WantedRoute]:
    """Routes of the cell that changed after ``newer_than``; -1 asks for every published one."""
    _, changed = await changes(db, cell_id, newer_than=newer_than)
    return changed


async def changes(
    db: Connection, cell_id: UUID, *, newer_than: int
) -> tuple[int, list[WantedRoute]]:
    """The cell's version and what ``wanted`` tells, both of one instant, in one round trip."""
    rows = await db.fetch(
        f"""SELECT c.version AS cell_version, w.* FROM cells c
            LEFT JOIN ({_WANTED}) w ON w.cell_id = c.id AND w.version > $2
                 AND ($2 >= 0 OR w.published)
            WHERE c.id = $1 ORDER BY w.alias""",  # noqa: S608 - a constant of this module
        cell_id,
        newer_than,
    )
    version: int = rows[0]["cell_version"]
    return version, [_wanted_route(dict(row)) for row in rows if row["tenant_id"] is not None]


def _wanted_route(values: dict[str, Any]) -> WantedRoute:
    roles = RoleSet(values["tenant_id"])
    del values["cell_version"], values["cell_id"]
    values["logins"] = {roles.login(slot): verifier for slot, verifier in values["logins"].items()}
    return WantedRoute(**values)


async def authorities(db: Connection, cell_id: UUID) -> list[str]:
    """PEM certificates of the authorities that sign for the servers of this cell's routes."""
    rows = await db.fetch(
        """SELECT DISTINCT s.ca_pem FROM routes r
           JOIN databases d ON d.id = r.database_id JOIN servers s ON s.id = d.server_id
           WHERE r.cell_id = $1 AND r.state = 'published' AND s.tls = 'verify-full'
           ORDER BY s.ca_pem""",
        cell_id,
    )
    return [row["ca_pem"].strip() for row in rows]


async def cell_version(db: Connection, cell_id: UUID) -> int:
    version: int = await db.fetchval("SELECT version FROM cells WHERE id = $1", cell_id)
    return version
