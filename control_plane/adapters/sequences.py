"""Where sequences stand, carried from one database to another: replication does not do it."""

from collections.abc import Iterable, Sequence

import msgspec

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.powerless import read_powerless
from control_plane.adapters.sql_text import load
from control_plane.domain.names import RoleSet

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
_HIGHEST = "SELECT to_jsonb(max({0})) FROM {1}"
_STANDING = "SELECT jsonb_build_array(last_value, is_called) FROM {0}"


class Standing(msgspec.Struct, frozen=True):
    """How far one sequence is."""

    name: str
    last_value: int
    is_called: bool

    @property
    def reached(self) -> int:
        """The highest value that it will not give again."""
        return self.last_value if self.is_called else self.last_value - 1


async def sequences_behind(inside: Connection, roles: RoleSet) -> list[str]:
    """Each sequence whose next value is taken already in the column it fills, one sentence each.

    ``inside`` is an administrator's; tables and sequences are the tenant's, and read with its
    backup role's rights. Clients may write meanwhile: the column is read first, and a sequence is
    ahead of it.
    """
    with translated():
        used = await inside.fetch(load("sequences_in_use"))
    if not used:
        return []
    tops = [_HIGHEST.format(one["attribute"], one["relation"]) for one in used]
    highest = await read_powerless(inside, roles.backup, _listed(tops), list[int | None])
    names = sorted({one["sequence"] for one in used})
    standings = [_STANDING.format(name) for name in names]
    reached = await read_powerless(inside, roles.backup, _listed(standings), list[tuple[int, bool]])
    standing = {
        name: Standing(name, *where) for name, where in zip(names, reached or [], strict=True)
    }
    found = []
    for one, value in zip(used, highest or [], strict=True):
        stands = standing[one["sequence"]]
        if value is not None and stands.reached < value:
            found.append(
                f"sequence {one['sequence']} stands at {stands.last_value}, "
                f"behind {value} in {one['relation']}.{one['attribute']}"
            )
    return sorted(found)


def _listed(statements: Iterable[str]) -> str:
    """What each of these finds, in their order."""
    parts = (f"SELECT {place} AS place, ({one}) AS found" for place, one in enumerate(statements))
    return f"SELECT jsonb_agg(found ORDER BY place) FROM ({' UNION ALL '.join(parts)}) AS parts"  # noqa: S608 - quoted by Postgres


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
