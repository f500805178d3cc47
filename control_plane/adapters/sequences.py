"""Where sequences stand, carried from one database to another: replication does not do it."""

from collections.abc import Sequence

import msgspec

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.sql_text import load

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

    @property
    def reached(self) -> int:
        """The highest value that it will not give again."""
        return self.last_value if self.is_called else self.last_value - 1


async def sequences_behind(inside: Connection) -> list[str]:
    """Each sequence whose next value is taken already in the column it fills, one sentence each.

    Clients may write meanwhile: the column is read first, and a sequence is ahead of it.
    """
    with translated():
        used = await inside.fetch(load("sequences_in_use"))
        if not used:
            return []
        highest = await inside.fetch(
            " UNION ALL ".join(
                f"SELECT {number} AS number, max({one['attribute']}) AS value "  # noqa: S608 - quoted by Postgres
                f"FROM {one['relation']}"
                for number, one in enumerate(used)
            )
        )
    names = sorted({one["sequence"] for one in used})
    standing = {one.name: one for one in await read_sequences(inside, names)}
    found = []
    for row in highest:
        one, value = used[row["number"]], row["value"]
        if value is not None and standing[one["sequence"]].reached < value:
            found.append(
                f"sequence {one['sequence']} stands at {standing[one['sequence']].last_value}, "
                f"behind {value} in {one['relation']}.{one['attribute']}"
            )
    return sorted(found)


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
