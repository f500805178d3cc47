"""Where sequences stand, carried from one database to another: replication does not do it."""

from collections.abc import Sequence

import msgspec

from control_plane.adapters.postgres_server import Connection, translated

_NAMES = """
SELECT format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'S' AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cp_meta')
 ORDER BY 1
"""
_SET = """
SELECT setval(name::regclass, last_value, is_called)
  FROM unnest($1::text[], $2::bigint[], $3::boolean[]) AS s (name, last_value, is_called)
"""


class Standing(msgspec.Struct, frozen=True):
    """How far one sequence is."""

    name: str
    last_value: int
    is_called: bool


async def sequence_names(reading: Connection) -> list[str]:
    """The sequences of the database, quoted."""
    with translated():
        return [row["name"] for row in await reading.fetch(_NAMES)]


async def read_sequences(reading: Connection, names: Sequence[str]) -> list[Standing]:
    """Where they stand now; ``reading`` is the backup role's, for they are the tenant's."""
    if not names:
        return []
    parts = (
        f"SELECT {number} AS number, last_value, is_called FROM {name}"  # noqa: S608 - quoted by Postgres
        for number, name in enumerate(names)
    )
    with translated():
        rows = await reading.fetch(" UNION ALL ".join(parts))
    return [Standing(names[r["number"]], r["last_value"], r["is_called"]) for r in rows]


async def set_sequences(inside: Connection, standings: Sequence[Standing]) -> None:
    """Let them stand there; ``inside`` is an administrator's."""
    if standings:
        with translated():
            await inside.execute(
                _SET,
                [one.name for one in standings],
                [one.last_value for one in standings],
                [one.is_called for one in standings],
            )
