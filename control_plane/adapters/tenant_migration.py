"""Compiled revisions applied to one tenant's database: one message and one transaction for each.

Several statements in one simple-protocol message are one transaction, so a revision costs a
single round trip and leaves nothing behind when it fails. The message begins by taking the
database's migration lock and comparing its revision: whoever comes second finds it applied.
"""

import re
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import msgspec
import postgast

from control_plane.adapters.postgres_server import Connection, translate
from control_plane.adapters.revisions import Revision, Segment, bind_roles
from control_plane.adapters.schema_mark import OTHER_SCHEMA, proof
from control_plane.domain.errors import (
    LockTimeout,
    RevisionFailed,
    SchemaMismatch,
    ServerUnavailable,
    TenantryError,
)
from control_plane.domain.names import RoleSet

# What may pass when the same revision is tried again on the same data.
_TRANSIENT = re.compile(r"08|57|53|40|55006|58")
_LOCK_STATES = frozenset({"55P03", "40P01"})
_OTHER_REVISION = "tenantry: another revision"
_ANSWER_SECONDS = 10.0
_OWN_PATH = "pg_catalog"
_MS = 1000

_AS_ADMINISTRATOR = """
SET LOCAL lock_timeout = {lock_ms};
SET LOCAL statement_timeout = {statement_ms};
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('tenantry:migrate', 0));\n"
# A cast that fails is the only way to raise in plain SQL; a DO block would load PL/pgSQL first.
_GUARD = """
SELECT CAST(CASE (SELECT string_agg(version_num, ',' ORDER BY version_num)
                    FROM public.alembic_version)
            WHEN '%s' THEN '0' ELSE 'tenantry: another revision' END AS integer);
"""
_REVISION = """
SELECT string_agg(version_num, ',' ORDER BY version_num) FROM public.alembic_version
"""
# A concurrent index waits for other transactions without being in anybody's way.
_ENTER_OUTSIDE = """
SET lock_timeout = {statement_ms};
SET statement_timeout = {statement_ms};
SET search_path = {search_path};
SELECT pg_advisory_lock(hashtextextended('tenantry:migrate', 0));
"""
_LEAVE_OUTSIDE = """
SELECT pg_advisory_unlock(hashtextextended('tenantry:migrate', 0));
RESET lock_timeout; RESET statement_timeout; RESET search_path;
"""
_INDEX_IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"
_RESTORE_POINT = "SELECT pg_create_restore_point($1)::text"
_WAL_POSITION = "SELECT pg_current_wal_lsn()::text"

Administrator = Callable[[], Awaitable[Connection]]


class Patience(msgspec.Struct, frozen=True):
    """How long a revision may wait for a lock, and how long one statement may run; seconds."""

    lock: float = 2.0
    statement: float = 600.0


def session_settings(patience: Patience) -> dict[str, str]:
    """Settings of the owner's session, which a transaction then need not set."""
    return {
        "lock_timeout": f"{int(patience.lock * _MS)}ms",
        "statement_timeout": f"{int(patience.statement * _MS)}ms",
    }


class Sessions(msgspec.Struct, frozen=True):
    """Into one tenant's database: the owner's, and an administrator's when it is needed.

    The owner's session has ``session_settings`` and finds names in ``pg_catalog`` only.
    """

    owner: Connection
    administrator: Administrator
    roles: RoleSet


async def read_revision(connection: Connection) -> str | None:
    """The revision of the database ``connection`` is in, ``None`` when it has no version table."""
    try:
        found = await connection.fetchval(_REVISION)
    except asyncpg.UndefinedTableError:
        return None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise translate(error) from error
    return found if isinstance(found, str) else None


def remaining(path: Sequence[Revision], current: str | None) -> tuple[Revision, ...]:
    """The part of ``path`` (oldest first) that comes after ``current``.

    Raises:
        SchemaMismatch: ``current`` is not on the path.
    """
    ids = [revision.id for revision in path]
    if current not in ids:
        raise SchemaMismatch(
            f"the database is at revision {current or 'none'}, which is not on the path to "
            f"{ids[-1] if ids else 'anything'}"
        )
    return tuple(path[ids.index(current) + 1 :])


async def mark_restore_point(connection: Connection, name: str) -> str:
    """A named point in the server's WAL to which it could be recovered; its LSN.

    Where the login may not name one, the present LSN alone.
    """
    try:
        lsn = await connection.fetchval(_RESTORE_POINT, name)
    except asyncpg.InsufficientPrivilegeError:
        lsn = await connection.fetchval(_WAL_POSITION)
    return str(lsn)


async def apply(
    sessions: Sessions, revision: Revision, patience: Patience, mark: str | None = None
) -> None:
    """Bring the database from ``revision.down`` to ``revision``; once there, it changes nothing.

    With ``mark`` a transaction is committed only if the schema has it afterwards.

    Raises:
        LockTimeout: another session kept a lock longer than ``patience.lock``; nothing was kept.
        RevisionFailed: the revision does not fit the data, or is wrong.
        SchemaMismatch: the database is at neither revision, or would not have ``mark``.
        ServerUnavailable: the server went away.
    """
    connection = await sessions.administrator() if revision.privileged else sessions.owner
    try:
        if revision.transactional:
            await _run_inside(connection, revision, sessions.roles, patience, mark)
        else:
            await _run_outside(connection, revision, sessions.roles, patience)
    except asyncpg.PostgresError as error:
        message = str(error.args[0]) if error.args else ""
        if OTHER_SCHEMA in message:
            raise SchemaMismatch(
                f"revision {revision.id} ({revision.title}) was taken back: with it the schema "
                "would not be what the template makes"
            ) from error
        if _OTHER_REVISION not in message:
            raise _explained(error, revision) from error
        await _require_applied(connection, revision)
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise translate(error) from error


async def _run_inside(
    connection: Connection,
    revision: Revision,
    roles: RoleSet,
    patience: Patience,
    mark: str | None,
) -> None:
    for segment in revision.segments:
        script = _script(revision, segment, _guard(revision), roles, patience)
        if mark is not None:
            script += proof(mark)
        await connection.execute(script, timeout=_longest(segment, patience))


async def _run_outside(
    connection: Connection, revision: Revision, roles: RoleSet, patience: Patience
) -> None:
    """Segment by segment; what an earlier attempt finished is found there and skipped."""
    await connection.execute(
        _ENTER_OUTSIDE.format(
            statement_ms=int(patience.statement * _MS), search_path=_path_of(revision)
        )
    )
    try:
        if await read_revision(connection) != revision.down:
            await _require_applied(connection, revision)
            return
        for segment in revision.segments:
            if segment.transactional:
                script = _script(revision, segment, "", roles, patience)
                await connection.execute(script, timeout=_longest(segment, patience))
            else:
                await _one_by_one(connection, segment, roles, patience)
    finally:
        if not connection.is_closed():
            await connection.execute(_LEAVE_OUTSIDE)


def _script(
    revision: Revision, segment: Segment, guard: str, roles: RoleSet, patience: Patience
) -> str:
    begin = ""
    if revision.privileged:
        begin = _AS_ADMINISTRATOR.format(
            lock_ms=int(patience.lock * _MS), statement_ms=int(patience.statement * _MS)
        )
    if revision.search_path != _OWN_PATH:
        begin += f"SET LOCAL search_path = {_path_of(revision)};\n"
    statements = bind_roles(";\n".join(segment.statements), roles)
    return f"{begin}{_LOCK}{guard}{statements}"


def _longest(segment: Segment, patience: Patience) -> float:
    return patience.statement * len(segment.statements) + _ANSWER_SECONDS


def _path_of(revision: Revision) -> str:
    """The schemas in which a revision's unqualified names are looked up."""
    return "public, pg_catalog" if revision.search_path == "public" else "pg_catalog"


async def _one_by_one(
    connection: Connection, segment: Segment, roles: RoleSet, patience: Patience
) -> None:
    for statement in segment.statements:
        text = bind_roles(statement, roles)
        if not await _effect_is_there(connection, text):
            await connection.execute(text, timeout=patience.statement + _ANSWER_SECONDS)


def _guard(revision: Revision) -> str:
    if revision.down is None:
        return ""
    if re.fullmatch(r"[A-Za-z0-9_.-]+", revision.down) is None:
        raise SchemaMismatch(f"revision id {revision.down!r}: use letters, digits, _ . and -")
    return _GUARD % revision.down


async def _effect_is_there(connection: Connection, statement: str) -> bool:
    """Whether an index is there already; one that was left invalid is dropped first."""
    node = postgast.parse(statement).stmts[0].stmt
    if not node.HasField("index_stmt"):
        return False
    index = node.index_stmt
    name = f'"{index.relation.schemaname or "public"}"."{index.idxname}"'
    valid = await connection.fetchval(_INDEX_IS_VALID, name)
    if valid is False:
        await connection.execute(f"DROP INDEX CONCURRENTLY {name}")
    return valid is True


async def _require_applied(connection: Connection, revision: Revision) -> None:
    found = await read_revision(connection)
    if found != revision.id:
        raise SchemaMismatch(
            f"revision {revision.id} follows {revision.down}, the database is at {found or 'none'}"
        )


def problem(revision: Revision, state: str, message: str, place: str = "") -> TenantryError:
    """Our error for what a server answered to a revision: who may come back, and who may not."""
    what = f"revision {revision.id} ({revision.title})"
    if state in _LOCK_STATES:
        return LockTimeout(f"{what} waits for a lock: {message}")
    if _TRANSIENT.match(state):
        return ServerUnavailable(f"{what} was interrupted: {state} {message}", state=state)
    named = f" on {place}" if place else ""
    return RevisionFailed(f"{what} failed{named}: {state} {message}", state=state)


def _explained(error: asyncpg.PostgresError, revision: Revision) -> TenantryError:
    """Never the server's DETAIL, for it has values."""
    message = str(error.args[0]) if error.args else "no message"
    place = ".".join(filter(None, (error.schema_name, error.table_name)))
    return problem(revision, error.sqlstate or "", message, place)
