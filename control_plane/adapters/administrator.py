"""What the administrator of a session may do on its server, and what it writes accordingly.

An attribute of a role may only be named, even to take it away, by whoever has it; a role starts
without any, so what cannot be named is left unsaid, and inspections tell who has one nevertheless.
"""

import re
from weakref import WeakKeyDictionary

import msgspec

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.adapters.sql_text import Clause, fill, load
from control_plane.domain.administrators import EVERYTHING, GUARDED_SETTINGS, Abilities
from control_plane.domain.errors import Invalid

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_SETTING = "ALTER ROLE {role} SET {setting} = {value};\n"
# Whoever makes a role may give it away; only by this it may also become it and act for it.
_REACH = "SET LOCAL createrole_self_grant = 'set, inherit';"
_known: WeakKeyDictionary[Connection, Abilities] = WeakKeyDictionary()


async def abilities(connection: Connection) -> Abilities:
    """What the login of this session may do; a server is asked once for each use of a session."""
    if connection.get_settings().is_superuser == "on":
        return EVERYTHING
    known = _known.get(connection)
    if known is None:
        known = _known[connection] = await read_abilities(connection)
    return known


def forget(connection: Connection) -> None:
    """Ask again: somebody may have given or taken something meanwhile."""
    _known.pop(connection, None)


async def read_abilities(connection: Connection) -> Abilities:
    """``abilities``, asked now; of functions this knows in the database ``postgres`` only."""
    with translated():
        text = await connection.fetchval(load("abilities"), list(GUARDED_SETTINGS))
    return msgspec.json.decode(text, type=Abilities)


def attributes(may: Abilities, *, past_policies: bool = False, streams: bool = False) -> Clause:
    """Those of a role: none, but to read past row security or to stream where that can be given."""
    named = ["NOCREATEDB", "NOCREATEROLE"]
    if may.superuser:
        named.append("NOSUPERUSER")
    if may.replication:
        named.append("REPLICATION" if streams else "NOREPLICATION")
    if may.bypassrls:
        named.append("BYPASSRLS" if past_policies else "NOBYPASSRLS")
    return Clause(" ".join(named))


def reach(may: Abilities) -> Clause:
    """What comes before CREATE ROLE, so that the administrator may do what the role may."""
    return Clause("" if may.superuser else _REACH)


def guarded_settings(may: Abilities, role: str, values: dict[str, str | int]) -> str:
    """Statements that give ``role`` those of these settings that the administrator may set."""
    return "".join(
        fill(_SETTING, role=role, setting=Clause(name), value=_literal(value))
        for name, value in values.items()
        if name in may.settings
    )


def administrator_script(name: str) -> str:
    """What a superuser runs so that the login ``name`` can be a server's administrator.

    Raises:
        Invalid: it is not a name that can be written anywhere in a script.
    """
    if _PLAIN_NAME.fullmatch(name) is None:
        words = "give 1 to 63 letters, digits, '_', '-' and '.'"
        raise Invalid(f"user {name!r}: {words}", [{"field": "user", "message": words}])
    return fill(
        load("limited_administrator"),
        administrator=Clause(f'"{name}"'),
        administrator_literal=Clause(f"'{name}'"),
    )


def _literal(value: str | int) -> Clause | int:
    return value if isinstance(value, int) else Clause(f"'{value}'")
