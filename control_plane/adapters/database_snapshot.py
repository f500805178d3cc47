"""A tenant's database at one instant: nothing in it changes for the sessions that look at it."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from control_plane.adapters.postgres_server import (
    Connection,
    ServerAddress,
    connect,
    translated,
)
from control_plane.adapters.sql_text import load
from control_plane.domain.backups import SequenceContent
from control_plane.domain.errors import DumpFailed, ObjectInUse, ServerRefused

TABLE, SEQUENCE = "r", "S"

# Values are written out in the same way whatever a server or a role is set to (beside the usual
# settings of a session), and a long table is read to its end.
_SETTINGS = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "row_security": "off",
    # To compile a statement costs more than its table gains.
    "jit": "off",
    # One session keeps one processor busy and no more.
    "max_parallel_workers_per_gather": "0",
}
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# The text can be trusted: Postgres made it, and a quote cannot be in it.
_IMPORT = "SET TRANSACTION SNAPSHOT '%s'"
_EXPORT = "SELECT pg_export_snapshot()"
_PRIVILEGED = "SELECT current_setting('is_superuser') = 'on'"
_AT_ONCE = 200
_SHOWN = 5


class Relation(msgspec.Struct, frozen=True):
    """A table, partitioned table or sequence; ``name`` is ``schema.name``, quoted.

    ``statement`` reads what it holds. ``guarded``: row security would hide some of it.
    """

    kind: str
    name: str
    readable: bool
    guarded: bool
    bytes: int
    statement: str | None


class Snapshot(msgspec.Struct, frozen=True):
    """An instant that other sessions can join by its ``name`` while ``connection`` lives."""

    connection: Connection
    name: str
    relations: list[Relation]

    def of(self, kind: str) -> list[Relation]:
        return [relation for relation in self.relations if relation.kind == kind]


@asynccontextmanager
async def frozen(
    address: ServerAddress, database: str, session_name: str, name: str | None = None
) -> AsyncIterator[Snapshot]:
    """A session that sees the database as it is now, or as the snapshot ``name`` shows it.

    Every table is locked against changes of its definition (ACCESS SHARE) until the end of the
    block, and for a new snapshot before it is taken: TRUNCATE and rewrites of a table do not keep
    to snapshots. ``address`` is of a login without special rights: an index may call a function
    of the tenant's while a statement is planned (S-08).

    Raises:
        ServerUnavailable, ServerRefused: see ``connect``.
        ServerRefused: the login is a superuser.
        ObjectInUse: a lock was not given within 10 seconds, or a table has just gone.
        DumpFailed: the login may not read something; the message says what, and the remedy.
    """
    connection = await connect(address, database, session_name, settings=_SETTINGS)
    try:
        yield await _begun(connection, address.user, name)
    finally:
        connection.terminate()


async def read_sequences(snapshot: Snapshot) -> dict[str, SequenceContent]:
    """Where every sequence stands now: they know no snapshot."""
    statements = [str(sequence.statement) for sequence in snapshot.of(SEQUENCE)]
    found: dict[str, SequenceContent] = {}
    with translated():
        for some in _batches(statements):
            for row in await snapshot.connection.fetch(" UNION ALL ".join(some)):
                found[row["name"]] = SequenceContent(
                    row["last_value"], row["is_called"], row["ascending"]
                )
    return found


async def _begun(connection: Connection, login: str, name: str | None) -> Snapshot:
    with translated():
        if await connection.fetchval(_PRIVILEGED):
            raise ServerRefused(f"{login} is a superuser; content is read by logins without rights")
        if name is None:
            before = await _relations(connection, login)
            await connection.execute(_BEGIN)
            await _lock(connection, before)
        else:
            await connection.execute(_BEGIN)
            await connection.execute(_IMPORT % name)
        relations = await _relations(connection, login)
        await _lock(connection, relations)
        exported = name or await connection.fetchval(_EXPORT)
    return Snapshot(connection, str(exported), relations)


async def _relations(connection: Connection, login: str) -> list[Relation]:
    rows = await connection.fetch(load("content_relations"))
    relations = [msgspec.convert(dict(row), Relation) for row in rows]
    if hidden := sorted(relation.name for relation in relations if not relation.readable):
        more = f" and {len(hidden) - _SHOWN} more" if len(hidden) > _SHOWN else ""
        raise DumpFailed(
            f"{login} may not read {', '.join(hidden[:_SHOWN])}{more}; let whoever owns it GRANT "
            f"SELECT on it, and USAGE on its schema, TO {login}"
        )
    if guarded := sorted(relation.name for relation in relations if relation.guarded):
        raise DumpFailed(
            f"row security would hide rows of {', '.join(guarded[:_SHOWN])} from {login}: let a "
            "superuser give the server's administrator BYPASSRLS, who passes it on"
        )
    return relations


async def _lock(connection: Connection, relations: Sequence[Relation]) -> None:
    tables = [relation.name for relation in relations if relation.kind != SEQUENCE]
    try:
        for some in _batches(tables):
            named = ", ".join(f"ONLY {table}" for table in some)
            await connection.execute(f"LOCK TABLE {named} IN ACCESS SHARE MODE")
    except asyncpg.UndefinedTableError as error:
        raise ObjectInUse("a table was dropped at this very moment") from error


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
