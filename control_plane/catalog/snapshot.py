"""The catalog's side of ``tenantry check``, read in one snapshot."""

from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.invariants import (
    Counter,
    ExpectedDatabase,
    ExpectedRoute,
    LiveOperation,
)
from control_plane.domain.move_invariants import ExpectedMove
from control_plane.domain.names import RoleSet, encode, show
from control_plane.domain.tenants import TIER_LIMITS, OwnLimits

_DATABASES = """
    SELECT d.id, d.name, s.name AS server, d.purpose, d.role_set_id, t.state AS tenant_state,
           d.unfinished_revision, t.slug, coalesce(t.tier, 'standard') AS tier,
           (SELECT to_jsonb(l) FROM tenant_limits l WHERE l.tenant_id = t.id) AS own_limits,
           EXISTS (SELECT FROM operations o
                   WHERE (o.database_id = d.id OR o.tenant_id = d.tenant_id)
                     AND o.state IN ('pending', 'running', 'waiting', 'cancelling')) AS busy,
           coalesce((SELECT jsonb_object_agg(c.slot, c.verifier) FROM credentials c
                     WHERE c.role_set_id = d.role_set_id AND c.state <> 'revoked'
                       AND r.state IS DISTINCT FROM 'withdrawn'), '{}') AS slots
    FROM databases d
    JOIN servers s ON s.id = d.server_id
    LEFT JOIN tenants t ON t.id = d.tenant_id
    LEFT JOIN routes r ON r.tenant_id = d.tenant_id
"""
_ROUTES = """
    SELECT t.id AS tenant_id, t.slug, t.state AS tenant_state, r.state AS route_state,
           coalesce(r.pause_until < clock_timestamp() - interval '5 s', false) AS pause_is_stale,
           EXISTS (SELECT FROM operations o WHERE o.tenant_id = t.id
                   AND o.state IN ('pending', 'running', 'waiting', 'cancelling')) AS busy,
           (SELECT o.id FROM operations o WHERE o.tenant_id = t.id AND o.state = 'failed'
            ORDER BY o.created_at DESC LIMIT 1) AS failed,
           EXISTS (SELECT FROM databases d
                   WHERE d.tenant_id = t.id AND d.purpose = 'primary') AS has_database,
           (SELECT b.state FROM backups b WHERE b.id = t.archive_backup_id) AS archive_state,
           t.state = 'deleting' AND t.legal_hold IS NULL AND coalesce(t.shred_after, t.delete_after)
               < clock_timestamp() - interval '1 hour' AS overdue
    FROM tenants t LEFT JOIN routes r ON r.tenant_id = t.id
    WHERE t.state <> 'deleted'
"""
_COUNTERS = """
    SELECT 'server ' || s.name AS subject, s.placed AS stored, count(d.id)::int AS counted
    FROM servers s LEFT JOIN databases d
         ON d.server_id = s.id AND (d.purpose = 'primary' OR d.holds_place)
    WHERE s.state <> 'removed' GROUP BY s.id
    UNION ALL
    SELECT 'cell ' || c.name, c.tenants, count(t.id)::int
    FROM cells c LEFT JOIN tenants t ON t.cell_id = c.id AND t.state <> 'deleted'
    GROUP BY c.id
"""
_OPERATIONS = """
    SELECT o.id, o.kind, o.subject, o.deadline, o.deadline < clock_timestamp() AS overdue,
           NOT EXISTS (SELECT FROM steps a JOIN steps b USING (operation_id)
                       WHERE a.operation_id = o.id AND a.position < b.position
                         AND a.state IN ('pending', 'running')
                         AND b.state IN ('done', 'skipped', 'failed')) AS steps_in_order
    FROM operations o WHERE o.state IN ('pending', 'running', 'waiting', 'cancelling')
"""
_TEMPLATES = """
    SELECT s.name AS server, t.fingerprint
    FROM templates t JOIN servers s ON s.id = t.server_id
"""

_MOVES = """
    SELECT m.id, t.slug, m.state, coalesce(m.method = 'online', false) AS online,
           s.name AS source, g.name AS target,
           EXISTS (SELECT FROM operations o WHERE o.tenant_id = m.tenant_id
                   AND o.state IN ('pending', 'running', 'waiting', 'cancelling')) AS busy
    FROM moves m JOIN tenants t ON t.id = m.tenant_id
    JOIN servers s ON s.id = m.source_server_id JOIN servers g ON g.id = m.target_server_id
    WHERE m.state IN ('moving', 'switched', 'reversible')
"""


class Snapshot(msgspec.Struct, frozen=True):
    """What the catalog expects. ``templates`` are (server, fingerprint)."""

    databases: list[ExpectedDatabase]
    routes: list[ExpectedRoute]
    counters: list[Counter]
    operations: list[LiveOperation]
    templates: list[tuple[str, str]]
    enrolling: frozenset[str]
    moves: tuple[ExpectedMove, ...] = ()

    @property
    def live_operation_ids(self) -> frozenset[str]:
        return frozenset(encode(operation.id) for operation in self.operations)


async def read(db: Connection) -> Snapshot:
    """Read everything in the caller's REPEATABLE READ transaction."""
    databases = [_database(dict(row)) for row in await db.fetch(_DATABASES)]
    found = [_route(dict(row)) for row in await db.fetch(_ROUTES)]
    counters = [Counter(**dict(row)) for row in await db.fetch(_COUNTERS)]
    operations = [LiveOperation(**dict(row)) for row in await db.fetch(_OPERATIONS)]
    templates = [(row["server"], row["fingerprint"]) for row in await db.fetch(_TEMPLATES)]
    enrolling = frozenset(o.subject for o in operations if o.kind == "enrol")
    moves = tuple(ExpectedMove(**dict(row)) for row in await db.fetch(_MOVES))
    return Snapshot(databases, found, counters, operations, templates, enrolling, moves)


def _database(values: dict[str, object]) -> ExpectedDatabase:
    role_set_id, slots = values["role_set_id"], values.pop("slots")
    own = msgspec.convert(values.pop("own_limits") or {}, OwnLimits)
    tier = values.pop("tier")
    assert isinstance(role_set_id, UUID)  # noqa: S101 - a uuid column
    assert isinstance(slots, dict)  # noqa: S101 - a jsonb object
    roles = RoleSet(role_set_id)
    values["open_logins"] = {roles.login(slot): verifier for slot, verifier in slots.items()}
    values["limits"] = own.over(TIER_LIMITS[tier]).login  # type: ignore[index]  # a CHECKed column
    return msgspec.convert(values, ExpectedDatabase)


def _route(values: dict[str, object]) -> ExpectedRoute:
    failed = values.pop("failed")
    values["operation_failed"] = show("op", failed) if isinstance(failed, UUID) else None
    return msgspec.convert(values, ExpectedRoute)
