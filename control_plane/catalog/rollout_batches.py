"""The tenants of a rollout that a worker has in the works, written a batch at a time.

Each tenant has a ``migrate`` operation of its own: the same rows as the engine would write, in one
statement for many. Every statement looks for the lease of the rollout's operation.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Literal
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection
from control_plane.domain.names import RoleSet
from control_plane.domain.plans import PLANS

Ending = Literal["done", "failed", "later", "back"]


class Begun(msgspec.Struct, frozen=True):
    """A tenant whose migration has begun, with what is needed to reach its database."""

    operation_id: UUID
    tenant_id: UUID
    slug: str
    database_id: UUID
    role_set_id: UUID
    database: str
    revision: str | None

    @property
    def roles(self) -> RoleSet:
        return RoleSet(self.role_set_id)


class Ended(msgspec.Struct, frozen=True):
    """How one migration ended; ``position`` is the step at which it did when it is not done."""

    operation_id: UUID
    outcome: Ending
    position: int = 3
    code: str | None = None
    message: str | None = None
    fingerprint: str | None = None


class Point(msgspec.Struct, frozen=True):
    """A named point in the WAL of a server."""

    server_id: UUID
    name: str
    lsn: str


def _sql(name: str) -> str:
    return (files("control_plane.catalog") / "sql" / f"{name}.sql").read_text()


_BEGIN = _sql("begin_targets")
_MARK = _sql("mark_targets")
_SETTLE = _sql("settle_targets")


async def servers_lacking(db: Connection, rollout_id: UUID, content: str) -> list[tuple[UUID, str]]:
    """Servers of the rollout's tenants that have no template of this version yet, with names."""
    rows = await db.fetch(
        """SELECT DISTINCT s.id, s.name FROM rollout_targets r
           JOIN databases d ON d.tenant_id = r.tenant_id AND d.purpose = 'primary'
           JOIN servers s ON s.id = d.server_id
           WHERE r.rollout_id = $1 AND r.state = 'waiting'
             AND NOT EXISTS (SELECT FROM templates t
                             WHERE t.server_id = s.id AND t.fingerprint = $2)
           ORDER BY s.name""",
        rollout_id,
        content,
    )
    return [(row["id"], row["name"]) for row in rows]


async def servers_waiting(db: Connection, rollout_id: UUID, wave: int) -> dict[UUID, int]:
    """Servers that still have tenants to begin up to this wave, with how many run on each."""
    rows = await db.fetch(
        """SELECT d.server_id, count(*) FILTER (WHERE r.state = 'running') AS running
           FROM rollout_targets r
           JOIN databases d ON d.tenant_id = r.tenant_id AND d.purpose = 'primary'
           WHERE r.rollout_id = $1 AND r.wave <= $2 AND r.state IN ('waiting', 'running')
           GROUP BY d.server_id HAVING count(*) FILTER (WHERE r.state = 'waiting') > 0
           ORDER BY d.server_id""",
        rollout_id,
        wave,
    )
    return {row["server_id"]: row["running"] for row in rows}


async def idle_role_sets(db: Connection, rollout_id: UUID) -> dict[UUID, list[UUID]]:
    """By server: the role sets of the rollout's tenants on which no operation works."""
    rows = await db.fetch(
        """SELECT d.server_id, array_agg(d.role_set_id) AS keys FROM rollout_targets r
           JOIN databases d ON d.tenant_id = r.tenant_id AND d.purpose = 'primary'
           WHERE r.rollout_id = $1 AND NOT EXISTS (
               SELECT FROM operations o WHERE o.tenant_id = r.tenant_id
               AND o.state IN ('pending', 'running', 'waiting', 'cancelling'))
           GROUP BY d.server_id""",
        rollout_id,
    )
    return {row["server_id"]: row["keys"] for row in rows}


async def begin(
    db: Connection, rollout_id: UUID, server_id: UUID, wave: int, operation_ids: Sequence[UUID]
) -> list[Begun]:
    """Begin to migrate up to as many tenants of a server as there are ids.

    The new operations carry the lease of the rollout's. Tenants in another operation are left
    waiting.
    """
    plan = PLANS["migrate"]
    rows = await db.fetch(
        _BEGIN,
        rollout_id,
        server_id,
        wave,
        list(operation_ids),
        plan.deadline,
        list(plan.steps),
        plan.queue,
    )
    return [Begun(**dict(row)) for row in rows]


async def mark(
    db: Connection,
    operation_id: UUID,
    batch: Sequence[Begun],
    point: Point,
    ids: Sequence[UUID],
    outside: Sequence[str | None],
) -> None:
    """Every tenant of the batch has its restore point, and its revision begins to be applied.

    ``outside`` names for each the revision that will run outside of a transaction, if there is one.
    """
    await db.execute(
        _MARK,
        operation_id,
        [begun.operation_id for begun in batch],
        list(ids),
        point.server_id,
        point.name,
        point.lsn,
        list(outside),
    )


async def settle(
    db: Connection, operation_id: UUID, ended: Sequence[Ended], revision: str, later: float
) -> None:
    """Record how migrations ended: operations, steps, databases and targets at once."""
    await db.execute(
        _SETTLE,
        operation_id,
        [e.operation_id for e in ended],
        [e.outcome for e in ended],
        [e.position for e in ended],
        [e.code for e in ended],
        [e.message for e in ended],
        revision,
        [e.fingerprint for e in ended],
        later,
    )


async def extend_leases(db: Connection, operation_id: UUID, batch: Sequence[UUID]) -> None:
    """The operations of a batch live as long as the rollout's own lease."""
    await db.execute(
        """UPDATE operations o SET lease_until = p.lease_until FROM operations p
           WHERE o.id = ANY ($2) AND p.id = $1 AND o.lease_owner = p.lease_owner AND o.epoch = 1""",
        operation_id,
        list(batch),
    )


async def reap(db: Connection, rollout_id: UUID, target: str) -> None:
    """Take over what became of tenants outside of the batch: ended, gone, or already there."""
    await db.execute(
        """UPDATE rollout_targets r
           SET state = CASE o.state WHEN 'succeeded' THEN 'done' ELSE 'failed' END,
               finished_at = o.finished_at,
               error_code = CASE o.state WHEN 'cancelled' THEN 'cancelled' ELSE o.error_code END,
               error_message = CASE o.state WHEN 'cancelled' THEN 'its migration was cancelled'
                                            ELSE o.error_message END
           FROM operations o
           WHERE r.rollout_id = $1 AND r.state = 'running' AND o.id = r.operation_id
             AND o.state IN ('succeeded', 'failed', 'cancelled')""",
        rollout_id,
    )
    await db.execute(
        """UPDATE rollout_targets r
           SET state = CASE WHEN d.schema_revision = $2 THEN 'done' ELSE 'skipped' END,
               finished_at = clock_timestamp(),
               error_message = CASE WHEN d.schema_revision = $2 THEN NULL
                                    ELSE 'the tenant is ' || t.state END
           FROM tenants t LEFT JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary'
           WHERE r.rollout_id = $1 AND r.state = 'waiting' AND t.id = r.tenant_id
             AND (d.id IS NULL OR d.schema_revision = $2
                  OR t.state NOT IN ('active', 'suspended'))""",
        rollout_id,
        target,
    )


async def waited_for(db: Connection, rollout_id: UUID, wave: int, most: int = 3) -> list[str]:
    """Tenants that cannot begin because of another operation: ``acme (rotate)``."""
    rows = await db.fetch(
        """SELECT t.slug, o.kind FROM rollout_targets r
           JOIN tenants t ON t.id = r.tenant_id
           JOIN operations o ON o.tenant_id = r.tenant_id
                AND o.state IN ('pending', 'running', 'waiting', 'cancelling')
           WHERE r.rollout_id = $1 AND r.wave <= $2 AND r.state IN ('waiting', 'running')
           ORDER BY r.wave, r.position LIMIT $3""",
        rollout_id,
        wave,
        most,
    )
    return [f"{row['slug']} ({row['kind']})" for row in rows]
