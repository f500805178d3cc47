"""What is on a tenant server: databases, roles, sessions and slots that could be ours."""

import msgspec

from control_plane.adapters.postgres_server import Connection, translated

_DATABASES = """
    SELECT datname AS name, datconnlimit <> -2 AS valid FROM pg_database
    WHERE datname ~ '^(t|tpl)_'
"""
_ROLES = "SELECT rolname FROM pg_roles WHERE rolname ~ '^t_[0-9a-z]{26}_'"
# An operation's session may end a moment after the operation: young ones are left alone.
_SESSIONS = """
    SELECT DISTINCT split_part(application_name, ':', 2) AS operation FROM pg_stat_activity
    WHERE application_name ~ '^cp:[0-9a-z]{26}:[0-9]+$' AND state_change < now() - interval '5 s'
"""
_SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE database ~ '^t_' AND NOT temporary"


class Inventory(msgspec.Struct, frozen=True):
    """``databases`` maps names to whether the database is valid; ``session_operations`` are ids."""

    databases: dict[str, bool]
    roles: frozenset[str]
    session_operations: frozenset[str]
    slots: frozenset[str]


async def read_inventory(connection: Connection) -> Inventory:
    """Four cheap looks at the shared catalogs."""
    with translated():
        databases = await connection.fetch(_DATABASES)
        roles = await connection.fetch(_ROLES)
        sessions = await connection.fetch(_SESSIONS)
        slots = await connection.fetch(_SLOTS)
    return Inventory(
        databases={row["name"]: row["valid"] for row in databases},
        roles=frozenset(row["rolname"] for row in roles),
        session_operations=frozenset(row["operation"] for row in sessions),
        slots=frozenset(row["slot_name"] for row in slots),
    )
