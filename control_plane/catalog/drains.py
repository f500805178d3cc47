"""Servers that are emptied by moves, and whose turn it is there."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection


class Drain(msgspec.Struct, frozen=True):
    """One server on its way to be empty; ``problem`` says why what is left does not move."""

    server_id: UUID
    at_once: int
    started_by: str
    started_at: dt.datetime
    problem: str | None


_DRAIN = ", ".join(Drain.__struct_fields__)


async def begin(db: Connection, server_id: UUID, *, at_once: int, started_by: str) -> None:
    """Empty this server from now on; asking again changes how many move at one time."""
    await db.execute(
        """INSERT INTO drains (server_id, at_once, started_by) VALUES ($1, $2, $3)
           ON CONFLICT (server_id) DO UPDATE SET at_once = excluded.at_once, problem = NULL""",
        server_id,
        at_once,
        started_by,
    )


async def end(db: Connection, server_id: UUID) -> bool:
    """Begin no further move; whether the server was being emptied."""
    return bool(
        await db.fetchval("DELETE FROM drains WHERE server_id = $1 RETURNING true", server_id)
    )


async def every(db: Connection) -> list[Drain]:
    rows = await db.fetch(f"SELECT {_DRAIN} FROM drains ORDER BY started_at")  # noqa: S608 - the struct's own field names
    return [Drain(**dict(row)) for row in rows]


async def of(db: Connection, server_id: UUID) -> Drain | None:
    """The drain of this server, if it is being emptied."""
    return next((drain for drain in await every(db) if drain.server_id == server_id), None)


async def tell(db: Connection, server_id: UUID, problem: str | None) -> None:
    await db.execute("UPDATE drains SET problem = $2 WHERE server_id = $1", server_id, problem)


async def left(db: Connection, server_id: UUID) -> int:
    """How many tenants are on the server."""
    count: int = await db.fetchval(
        "SELECT count(*) FROM databases WHERE server_id = $1 AND purpose = 'primary'", server_id
    )
    return count


async def moving(db: Connection, server_id: UUID) -> int:
    """How many tenants are on their way from the server."""
    count: int = await db.fetchval(
        """SELECT count(*) FROM moves m JOIN operations o ON o.id = m.id
           WHERE m.source_server_id = $1
             AND o.state IN ('pending', 'running', 'waiting', 'cancelling')""",
        server_id,
    )
    return count


async def next_tenants(db: Connection, server_id: UUID, limit: int) -> list[UUID]:
    """Whose turn it is: active, not busy, not just failed; the oldest first."""
    rows = await db.fetch(
        """SELECT t.id FROM tenants t
             JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary'
            WHERE d.server_id = $1 AND t.state = 'active'
              AND NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = t.id
                  AND (o.state IN ('pending', 'running', 'waiting', 'cancelling')
                       OR (o.kind = 'move' AND o.state IN ('failed', 'cancelled')
                           AND o.finished_at > clock_timestamp() - interval '10 min')))
              AND NOT EXISTS (SELECT FROM moves m WHERE m.tenant_id = t.id
                  AND m.state IN ('moving', 'switched', 'reversible'))
            ORDER BY t.created_at, t.id LIMIT $2""",
        server_id,
        limit,
    )
    return [row["id"] for row in rows]
