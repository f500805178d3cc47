"""Tenant servers in the catalog: identity, capacity, health, templates."""

import datetime as dt
from typing import Any, Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Conflict, NotFound
from control_plane.domain.placement import ServerCapacity
from control_plane.domain.tenants import Tier

ServerState = Literal["enrolling", "active", "draining", "removed"]
Tls = Literal["disable", "require", "verify-full"]


class Server(msgspec.Struct, frozen=True):
    """A Postgres instance that databases are placed on. ``sealed_password`` is ciphertext.

    ``placed`` counts tenants, ``pooled`` the databases that wait for one.
    """

    id: UUID
    name: str
    host: str
    hostaddr: str
    port: int
    admin_login: str
    sealed_password: bytes
    tls: Tls
    ca_pem: str | None
    system_identifier: int
    version_num: int
    region: str | None
    tier: Tier | None
    labels: dict[str, str]
    capacity: int
    placed: int
    state: ServerState
    preflight: list[dict[str, Any]]
    reachable: bool
    checked_at: dt.datetime
    problem: str | None
    created_at: dt.datetime
    pooled: int = 0


_POOLED = """(SELECT count(*) FROM databases d
              WHERE d.server_id = servers.id AND d.purpose = 'pooled') AS pooled"""
_STORED = [name for name in Server.__struct_fields__ if name != "pooled"]
_COLUMNS = ", ".join([*_STORED, _POOLED])


async def insert(db: Connection, server: Server) -> None:
    """Record a server in state ``enrolling``.

    Raises:
        Conflict: another living server has this name or this system identifier.
    """
    await db.execute(
        """INSERT INTO servers (id, name, host, hostaddr, port, admin_login, sealed_password, tls,
               ca_pem, system_identifier, version_num, region, tier, labels, capacity, state,
               preflight)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                   'enrolling', $16)""",
        server.id,
        server.name,
        server.host,
        server.hostaddr,
        server.port,
        server.admin_login,
        server.sealed_password,
        server.tls,
        server.ca_pem,
        server.system_identifier,
        server.version_num,
        server.region,
        server.tier,
        server.labels,
        server.capacity,
        server.preflight,
    )


async def get(db: Connection, server_id: UUID) -> Server:
    """The server with this id, removed ones included.

    Raises:
        NotFound: there is none.
    """
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM servers WHERE id = $1", server_id)  # noqa: S608 - the struct's own field names
    if row is None:
        raise NotFound("there is no such server")
    return Server(**dict(row))


async def find(db: Connection, name: str) -> Server:
    """The living server with this name.

    Raises:
        NotFound: there is none.
    """
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM servers WHERE name = $1 AND state <> 'removed'",  # noqa: S608 - the struct's own field names
        name,
    )
    if row is None:
        raise NotFound(f"there is no server {name!r}")
    return Server(**dict(row))


async def every(db: Connection) -> list[Server]:
    """All living servers by name (a fleet has tens, not thousands)."""
    rows = await db.fetch(
        f"SELECT {_COLUMNS} FROM servers WHERE state <> 'removed' ORDER BY name"  # noqa: S608 - the struct's own field names
    )
    return [Server(**dict(row)) for row in rows]


async def capacities(db: Connection, template: str, content: str) -> list[ServerCapacity]:
    """The snapshot placement decides on.

    New databases are made from ``content``, the template as it is now; on a server that is still
    building it, from the newest one that is ready.
    """
    rows = await db.fetch(
        """SELECT s.id, s.name, s.state, s.reachable, s.region, s.tier, s.capacity, s.placed,
                  s.version_num / 10000 AS major,
                  (SELECT t.fingerprint FROM templates t
                   WHERE t.server_id = s.id AND t.template = $1
                   ORDER BY t.fingerprint = $2 DESC, t.ready_at DESC LIMIT 1) AS content
           FROM servers s WHERE s.state <> 'removed' ORDER BY s.name""",
        template,
        content,
    )
    return [ServerCapacity(**dict(row)) for row in rows]


async def reserve(db: Connection, server_id: UUID, *, alone: bool) -> bool:
    """Take one place if there still is one; ``alone`` wants the server empty (dedicated)."""
    taken = await db.fetchval(
        """UPDATE servers SET placed = placed + 1
           WHERE id = $1 AND state = 'active' AND placed < capacity AND (NOT $2 OR placed = 0)
           RETURNING id""",
        server_id,
        alone,
    )
    return taken is not None


async def release(db: Connection, server_id: UUID) -> None:
    """Give one place back."""
    await db.execute("UPDATE servers SET placed = placed - 1 WHERE id = $1", server_id)


async def change_state(
    db: Connection, server_id: UUID, *, expected: tuple[ServerState, ...], wanted: ServerState
) -> bool:
    """Compare-and-set; ``True`` when the server is now in the wanted state."""
    row = await db.fetchval(
        """UPDATE servers SET state = $3 WHERE id = $1 AND (state = ANY($2) OR state = $3)
           RETURNING id""",
        server_id,
        list(expected),
        wanted,
    )
    return row is not None


async def record_health(
    db: Connection, server_id: UUID, *, reachable: bool, problem: str | None
) -> bool:
    """Store the newest look at a server; ``True`` when reachability changed."""
    return bool(
        await db.fetchval(
            """UPDATE servers s SET reachable = $2, problem = $3, checked_at = clock_timestamp()
               FROM (SELECT id, reachable FROM servers WHERE id = $1 FOR UPDATE) old
               WHERE s.id = old.id RETURNING old.reachable <> $2""",
            server_id,
            reachable,
            problem,
        )
    )


async def readdress(db: Connection, server_id: UUID, was: str, hostaddr: str) -> bool:
    """Its name leads to another address now; ``False`` when another process was first."""
    found = await db.fetchval(
        "UPDATE servers SET hostaddr = $3 WHERE id = $1 AND hostaddr = $2 RETURNING id",
        server_id,
        was,
        hostaddr,
    )
    return found is not None


async def record_template(
    db: Connection, server_id: UUID, *, template: str, fingerprint: str, revision: str
) -> None:
    """The closed template database of this version is ready on this server."""
    await db.execute(
        """INSERT INTO templates (server_id, template, fingerprint, revision)
           VALUES ($1, $2, $3, $4)
           ON CONFLICT (server_id, fingerprint) DO UPDATE SET ready_at = clock_timestamp()""",
        server_id,
        template,
        fingerprint,
        revision,
    )


async def template_revision(db: Connection, server_id: UUID, fingerprint: str) -> str | None:
    """The Alembic revision of a ready template, ``None`` when it is not ready."""
    revision: str | None = await db.fetchval(
        "SELECT revision FROM templates WHERE server_id = $1 AND fingerprint = $2",
        server_id,
        fingerprint,
    )
    return revision


async def template_contents(db: Connection, server_id: UUID) -> list[str]:
    """The fingerprints of every template version that is ready on a server."""
    rows = await db.fetch("SELECT fingerprint FROM templates WHERE server_id = $1", server_id)
    return [row["fingerprint"] for row in rows]


async def remove(db: Connection, server: Server) -> None:
    """Take an empty server out of the fleet.

    Raises:
        Conflict: databases still live there.
    """
    held = await db.fetchval("SELECT count(*) FROM databases WHERE server_id = $1", server.id)
    if held:
        raise Conflict(f"server {server.name} still holds {held} databases; empty it first")
    await db.execute("DELETE FROM templates WHERE server_id = $1", server.id)
    await db.execute("UPDATE servers SET state = 'removed' WHERE id = $1", server.id)
