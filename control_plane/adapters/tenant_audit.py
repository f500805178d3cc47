"""The audit log inside a tenant's database: sealed, read back and taken apart again.

Only tables and functions that belong to the tenant's auditor are used, by its own session
(``auditor_session``); verification calls none of the database's own functions.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.powerless import read_powerless
from control_plane.adapters.sql_text import load
from control_plane.domain.audit_chain import Block
from control_plane.domain.names import RoleSet

# A schema of this name that anybody else made is not ours, and nothing in it is called.
_HAS_LOG = """
SELECT EXISTS (
    SELECT FROM pg_namespace n
      JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname IN ('seal', 'ensure_partitions')
     WHERE n.nspname = 'audit' AND pg_get_userbyid(n.nspowner) = $1
       AND pg_get_userbyid(p.proowner) = $1)
"""
_SEAL = "SELECT count(*) FROM audit.seal()"
_PARTITIONS = "SELECT audit.ensure_partitions()"
_BLOCKS = """
SELECT block, seqs, row_count AS rows, prev_hash, root, block_hash, sealed_at,
       concat_ws(' ', era, seqs, first_xid, last_xid, next_xid) AS place
  FROM audit.seal_block WHERE block > $1 ORDER BY block LIMIT $2
"""
_BLOCK_ROWS = """
SELECT l.seq,
       CAST(jsonb_build_array(l.seq, CAST(extract(epoch FROM l.at) * 1000000 AS bigint),
            CAST(l.xid AS text), l.actor, l.login, l.application_name, CAST(l.op AS text), l.rel,
            l.pk, l.diff, l.request_id) AS text) AS text
  FROM audit.seal_block b
  JOIN audit.audit_log l ON (l.xid, l.seq) >= (b.first_xid, b.first_seq)
                        AND (l.xid, l.seq) <= (b.last_xid, b.last_seq) AND b.seqs @> l.seq
 WHERE b.block = $1
"""
_AS_JSON = """
SELECT jsonb_build_array(blocks, encode(anchored_hash, 'hex'), lag) FROM (
{0}) AS found
"""
_PAGE = 500
_COUNT = "SELECT coalesce(max(block), 0) FROM audit.seal_block"
# What one call of audit.seal() makes at most, or a few more.
_BLOCKS_AT_ONCE = 100


class ChainEnd(msgspec.Struct, frozen=True):
    """``anchored_hash`` is that of the block that was asked for; ``lag`` is in seconds.

    ``lag`` is the age of the oldest line of the log that no block holds, 0 when all are held.
    """

    blocks: int
    anchored_hash: bytes | None
    lag: float


class Strays(msgspec.Struct, frozen=True):
    """Lines that wait to be sealed, and lines that should be in a block and are in none."""

    waiting: int
    unsealed: tuple[int, ...]


async def has_audit_log(connection: Connection, roles: RoleSet) -> bool:
    """Whether the database has the audit log of the clinic's template, owned by the auditor."""
    return await _has_log(connection, roles.auditor)


async def begin_era(connection: Connection, auditor: str) -> None:
    """Let an empty log, if there is one, know its cluster: nobody waits for that later.

    The first seal on a cluster holds writers up while it reads the whole log.
    """
    if await _has_log(connection, auditor):
        await seal(connection)


async def count_blocks(connection: Connection) -> int:
    """How many blocks the log has."""
    with translated():
        return int(await connection.fetchval(_COUNT))


async def seal_all(connection: Connection) -> None:
    """Seal what is settled, however much that is.

    Raises:
        ObjectInUse: see ``seal``.
    """
    while await seal(connection) >= _BLOCKS_AT_ONCE:
        pass


async def _has_log(connection: Connection, auditor: str) -> bool:
    with translated():
        return bool(await connection.fetchval(_HAS_LOG, auditor))


async def seal(connection: Connection) -> int:
    """Seal some of what is settled; how many blocks were made. Two at once are one.

    Raises:
        ObjectInUse: the log was restored from another cluster and is being written to.
    """
    with translated():
        return int(await connection.fetchval(_SEAL))


async def ensure_partitions(connection: Connection) -> int:
    """Make the log's partitions for the months ahead; how many were made.

    Raises:
        ObjectInUse: a transaction keeps the log busy; the default partition takes the rows.
    """
    with translated():
        return int(await connection.fetchval(_PARTITIONS))


@asynccontextmanager
async def snapshot(connection: Connection) -> AsyncIterator[None]:
    """One read-only transaction that sees a single instant."""
    with translated():
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield


async def blocks_after(connection: Connection, block: int) -> AsyncIterator[Block]:
    """The blocks that come after this number, in their order."""
    while True:
        with translated():
            rows = await connection.fetch(_BLOCKS, block, _PAGE)
        for row in rows:
            values = dict(row)
            parts = tuple(range(part.lower, part.upper) for part in values.pop("seqs"))
            yield Block(members=parts, **values)
        if len(rows) < _PAGE:
            return
        block = rows[-1]["block"]


async def block_rows(connection: Connection, block: int) -> dict[int, str]:
    """The rows of a block as their canonical text, by ``seq``."""
    with translated():
        rows = await connection.fetch(_BLOCK_ROWS, block)
    return {row["seq"]: row["text"] for row in rows}


async def find_strays(connection: Connection) -> Strays:
    """Look for lines that no block holds; reads the whole log."""
    with translated():
        row = await connection.fetchrow(load("audit_strays"))
    return Strays(row["waiting"], tuple(row["unsealed"])) if row else Strays(0, ())


async def read_chain_end(connection: Connection, anchored_block: int) -> ChainEnd:
    """The end of the chain, beside the block that was last anchored; cheap."""
    with translated():
        row = await connection.fetchrow(load("audit_chain_end"), anchored_block)
    return ChainEnd(**dict(row)) if row else ChainEnd(0, None, 0.0)


async def look_at_chain_end(inside: Connection, roles: RoleSet, anchored_block: int) -> ChainEnd:
    """``read_chain_end`` on an administrator's connection, with the auditor's rights."""
    found = load("audit_chain_end").replace("$1", str(int(anchored_block)))
    row = await read_powerless(
        inside, roles.auditor, _AS_JSON.format(found), tuple[int, str | None, float]
    )
    if row is None:
        return ChainEnd(0, None, 0.0)
    blocks, anchored_hash, lag = row
    return ChainEnd(blocks, bytes.fromhex(anchored_hash) if anchored_hash else None, lag)
