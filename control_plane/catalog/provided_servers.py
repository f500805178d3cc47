"""Servers that a provider has made, or is making or deleting, for us."""

import datetime as dt
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection, Record
from control_plane.domain.errors import NotFound
from control_plane.domain.operations import LIVE_STATES
from control_plane.domain.provider_invariants import ExpectedInstance
from control_plane.domain.providers import ProviderKind, ServerWish

ProvidedState = Literal["creating", "ready", "deleting", "deleted"]


class ProvidedServer(msgspec.Struct, frozen=True):
    """One such server. ``sealed_password`` is ciphertext, kept until the server is enrolled."""

    id: UUID
    name: str
    provider: ProviderKind
    wish: ServerWish
    sealed_password: bytes | None
    state: ProvidedState
    created_at: dt.datetime


_COLUMNS = ", ".join(ProvidedServer.__struct_fields__)


async def insert(
    db: Connection,
    *,
    key: UUID,
    name: str,
    provider: ProviderKind,
    wish: ServerWish,
    sealed_password: bytes,
) -> None:
    """Record a server that is going to be made."""
    await db.execute(
        """INSERT INTO provided_servers (id, name, provider, wish, sealed_password)
           VALUES ($1, $2, $3, $4, $5)""",
        key,
        name,
        provider,
        msgspec.to_builtins(wish),
        sealed_password,
    )


async def get(db: Connection, key: UUID) -> ProvidedServer:
    """The server with this id, deleted ones included.

    Raises:
        NotFound: no provider made it.
    """
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM provided_servers WHERE id = $1", key)  # noqa: S608 - the struct's own field names
    if row is None:
        raise NotFound("no provider made such a server")
    return _from_row(row)


async def find(db: Connection, name: str) -> ProvidedServer | None:
    """The server with this name that is not deleted, locked for this transaction."""
    row = await db.fetchrow(
        f"""SELECT {_COLUMNS} FROM provided_servers
            WHERE name = $1 AND state <> 'deleted' FOR UPDATE""",  # noqa: S608 - the struct's own field names
        name,
    )
    return _from_row(row) if row is not None else None


async def every(db: Connection) -> list[ProvidedServer]:
    """All that are not deleted, by name."""
    rows = await db.fetch(
        f"SELECT {_COLUMNS} FROM provided_servers WHERE state <> 'deleted' ORDER BY name"  # noqa: S608 - the struct's own field names
    )
    return [_from_row(row) for row in rows]


async def expected(db: Connection) -> list[ExpectedInstance]:
    """All that are not deleted, as ``tenantry check`` wants them."""
    rows = await db.fetch(
        """SELECT p.id, p.name, p.provider, p.state = 'ready' AS ready,
                  EXISTS (SELECT FROM servers s WHERE s.id = p.id AND s.state <> 'removed')
                      AS enrolled,
                  EXISTS (SELECT FROM operations o
                          WHERE o.input ->> 'provided' = p.id::text AND o.state = ANY($1)
                            AND o.kind IN ('create_server', 'delete_server')) AS busy
           FROM provided_servers p WHERE p.state <> 'deleted' ORDER BY p.name""",
        list(LIVE_STATES),
    )
    return [ExpectedInstance(**dict(row)) for row in rows]


async def mark_ready(db: Connection, key: UUID) -> None:
    """It is enrolled: its password is that of the server's own row from now on."""
    await db.execute(
        "UPDATE provided_servers SET state = 'ready', sealed_password = NULL WHERE id = $1", key
    )


async def mark_deleting(db: Connection, key: UUID) -> None:
    """From here on it is only ever deleted."""
    await db.execute("UPDATE provided_servers SET state = 'deleting' WHERE id = $1", key)


async def mark_deleted(db: Connection, key: UUID) -> None:
    """It is gone, and its name is free."""
    await db.execute(
        "UPDATE provided_servers SET state = 'deleted', sealed_password = NULL WHERE id = $1", key
    )


def _from_row(row: Record) -> ProvidedServer:
    values = dict(row)
    values["wish"] = msgspec.convert(values["wish"], ServerWish)
    return ProvidedServer(**values)
