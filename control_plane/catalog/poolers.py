"""Poolers: the PgBouncer processes that serve a cell, as their agents report them."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.errors import NotFound

ALIVE_SECONDS = 10.0


class Pooler(msgspec.Struct, frozen=True):
    """One PgBouncer process. ``served_version`` is the cell version it acknowledged."""

    id: UUID
    name: str
    cell_id: UUID
    cell: str
    host: str
    port: int
    version: str | None
    served_version: int
    wanted_version: int
    served_entries: int
    served_digest: str | None
    problem: str | None
    alive: bool
    last_seen_at: dt.datetime


class Heartbeat(msgspec.Struct, frozen=True):
    """What an agent says about its pooler."""

    pooler_id: UUID
    version: str | None
    served_version: int
    served_entries: int
    served_digest: str | None
    problem: str | None


_SELECT = f"""
    SELECT p.id, p.name, p.cell_id, c.name AS cell, p.host, p.port, p.version, p.served_version,
           c.version AS wanted_version, p.served_entries, p.served_digest, p.problem,
           p.last_seen_at > clock_timestamp() - make_interval(secs => {ALIVE_SECONDS}) AS alive,
           p.last_seen_at
    FROM poolers p JOIN cells c ON c.id = p.cell_id
"""  # noqa: S608 - a constant of this module


class Registration(msgspec.Struct, frozen=True):
    """Who a pooler is: its own name and address inside its cell."""

    id: UUID
    name: str
    cell_id: UUID
    host: str
    port: int


async def register(db: Connection, wanted: Registration) -> UUID:
    """Make the pooler known, or take it over after a restart; its id is returned."""
    pooler_id: UUID = await db.fetchval(
        """INSERT INTO poolers (id, name, cell_id, host, port) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (name) DO UPDATE SET cell_id = excluded.cell_id, host = excluded.host,
               port = excluded.port, served_version = -1, problem = NULL,
               last_seen_at = clock_timestamp()
           RETURNING id""",
        wanted.id,
        wanted.name,
        wanted.cell_id,
        wanted.host,
        wanted.port,
    )
    return pooler_id


async def beat(db: Connection, heartbeat: Heartbeat) -> None:
    """Store a heartbeat; workers that wait for this cell's version see it at once."""
    await db.execute(
        """UPDATE poolers SET version = coalesce($2, version), served_version = $3,
               served_entries = $4, served_digest = $5, problem = $6,
               last_seen_at = clock_timestamp()
           WHERE id = $1""",
        heartbeat.pooler_id,
        heartbeat.version,
        heartbeat.served_version,
        heartbeat.served_entries,
        heartbeat.served_digest,
        heartbeat.problem,
    )


async def lost(db: Connection, pooler_id: UUID, problem: str) -> None:
    """Say why a pooler does not serve, without a sign of life from it: soon it counts as dead."""
    await db.execute("UPDATE poolers SET problem = $2 WHERE id = $1", pooler_id, problem)


async def every(db: Connection, cell_id: UUID | None = None) -> list[Pooler]:
    rows = await db.fetch(
        _SELECT + " WHERE ($1::uuid IS NULL OR p.cell_id = $1) ORDER BY p.name", cell_id
    )
    return [Pooler(**dict(row)) for row in rows]


async def behind(db: Connection, cell_id: UUID, version: int) -> list[Pooler]:
    """Poolers of the cell that do not serve this version yet, dead ones included."""
    rows = await db.fetch(
        _SELECT + " WHERE p.cell_id = $1 AND p.served_version < $2 ORDER BY p.name",
        cell_id,
        version,
    )
    return [Pooler(**dict(row)) for row in rows]


async def unpaused(db: Connection, tenant_id: UUID, operation_id: UUID) -> list[str]:
    """Names of the poolers that have not acknowledged this operation's pause."""
    rows = await db.fetch(
        """SELECT p.name FROM routes r JOIN poolers p ON p.cell_id = r.cell_id
           LEFT JOIN pause_acks a ON a.tenant_id = r.tenant_id AND a.pooler_id = p.id
                AND a.operation_id = r.paused_by AND a.epoch = r.pause_epoch
           WHERE r.tenant_id = $1 AND r.paused_by = $2 AND a.pooler_id IS NULL ORDER BY p.name""",
        tenant_id,
        operation_id,
    )
    return [row["name"] for row in rows]


async def find(db: Connection, name: str) -> Pooler:
    """The pooler of this name, which nobody else removes before this transaction ends.

    Raises:
        NotFound: there is none.
    """
    row = await db.fetchrow(_SELECT + " WHERE p.name = $1 FOR UPDATE OF p", name)
    if row is None:
        raise NotFound(f"there is no pooler {name!r}")
    return Pooler(**dict(row))


async def named_in_dsns(db: Connection, pooler: Pooler) -> int:
    """How many tenants' DSNs hold its address."""
    count: int = await db.fetchval(
        """SELECT count(*) FROM routes r JOIN tenants t ON t.id = r.tenant_id
           WHERE t.state <> 'deleted' AND (r.endpoint_host, r.endpoint_port) = ($1, $2)""",
        pooler.host,
        pooler.port,
    )
    return count


async def remove(db: Connection, pooler: Pooler) -> None:
    """Forget a pooler that was taken out of service for good."""
    await db.execute("DELETE FROM poolers WHERE id = $1", pooler.id)
