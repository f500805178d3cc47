"""What is on a tenant server: databases, roles, sessions and slots that could be ours."""

import msgspec

from control_plane.adapters.postgres_server import Connection, translated
from control_plane.domain.move_invariants import FoundLinks

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
_SLOTS = """
    SELECT slot_name, wal_status = 'lost' AS lost FROM pg_replication_slots
    WHERE database ~ '^t_' AND NOT temporary
"""
_SUBSCRIPTIONS = """
    SELECT s.subname, s.subenabled FROM pg_subscription s
    JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname ~ '^t_'
"""
_LINK_ROLES = "SELECT rolname FROM pg_roles WHERE rolname ~ '^cp_[0-9a-z]{26}'"


class Inventory(msgspec.Struct, frozen=True):
    """``databases`` maps names to whether the database is valid; ``session_operations`` are ids."""

    databases: dict[str, bool]
    roles: frozenset[str]
    session_operations: frozenset[str]
    links: FoundLinks


async def read_inventory(connection: Connection) -> Inventory:
    """A few cheap looks at the shared catalogs."""
    with translated():
        databases = await connection.fetch(_DATABASES)
        roles = await connection.fetch(_ROLES)
        sessions = await connection.fetch(_SESSIONS)
        slots = await connection.fetch(_SLOTS)
        subscriptions = await connection.fetch(_SUBSCRIPTIONS)
        link_roles = await connection.fetch(_LINK_ROLES)
    return Inventory(
        databases={row["name"]: row["valid"] for row in databases},
        roles=frozenset(row["rolname"] for row in roles),
        session_operations=frozenset(row["operation"] for row in sessions),
        links=FoundLinks(
            slots=frozenset(row["slot_name"] for row in slots),
            lost_slots=frozenset(row["slot_name"] for row in slots if row["lost"]),
            subscriptions={row["subname"]: row["subenabled"] for row in subscriptions},
            roles=frozenset(row["rolname"] for row in link_roles),
        ),
    )
