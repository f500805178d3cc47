"""Rollouts in the catalog: what was asked for, every tenant in it, and how far it has come."""

import datetime as dt
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from control_plane.catalog.pool import Connection, Record
from control_plane.domain.errors import Conflict, NotFound, WrongState
from control_plane.domain.names import show
from control_plane.domain.plans import PLANS
from control_plane.domain.rollouts import (
    Candidate,
    Rollout,
    RolloutState,
    Selector,
    TargetState,
    WaveCounts,
)

_ROLLOUT = ", ".join(Rollout.__struct_fields__)


class Target(msgspec.Struct, frozen=True):
    """One tenant of a rollout; ``seconds`` is how long its last attempt took."""

    tenant_id: UUID
    slug: str
    server: str
    wave: int
    state: TargetState
    from_revision: str | None
    operation_id: UUID | None
    attempts: int
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    error_code: str | None
    error_message: str | None

    @property
    def seconds(self) -> float | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


async def candidates(
    db: Connection, template: str, target: str, selector: Selector, rollout_id: UUID | None = None
) -> list[Candidate]:
    """Tenants of this template that fit and are not at ``target``, oldest first.

    Those that are in ``rollout_id`` already are left out.
    """
    rows = await db.fetch(
        """SELECT t.id AS tenant_id, t.slug, d.server_id, d.schema_revision AS revision
           FROM tenants t
           JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary'
           JOIN servers s ON s.id = d.server_id
           WHERE t.state IN ('active', 'suspended') AND t.template = $1
             AND d.schema_revision IS DISTINCT FROM $2
             AND (cardinality($3::text[]) = 0 OR t.tier = ANY ($3))
             AND (cardinality($4::text[]) = 0 OR s.name = ANY ($4))
             AND (cardinality($5::text[]) = 0 OR t.slug = ANY ($5))
             AND t.labels @> $6
             AND NOT EXISTS (SELECT FROM rollout_targets r
                             WHERE r.rollout_id = $7 AND r.tenant_id = t.id)
           ORDER BY t.created_at, t.id""",
        template,
        target,
        list(selector.tiers),
        list(selector.servers),
        list(selector.tenants),
        selector.labels,
        rollout_id,
    )
    return [Candidate(**dict(row)) for row in rows]


async def require_tenant(db: Connection, slug: str, template: str) -> None:
    """A tenant that was named is there and has this template.

    Raises:
        NotFound: it is not there.
        WrongState: it is made from another template.
    """
    found = await db.fetchval(
        "SELECT template FROM tenants WHERE slug = $1 AND state <> 'deleted'", slug
    )
    if found is None:
        raise NotFound(f"there is no tenant {slug!r}")
    if found != template:
        raise WrongState(f"{slug} is made from template {found}, not {template}")


async def newcomers(db: Connection, template: str, content: str) -> list[str]:
    """Tenants that are still being provisioned from an older version of the template."""
    rows = await db.fetch(
        """SELECT t.slug FROM tenants t
           JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary'
           WHERE t.state = 'provisioning' AND t.template = $1 AND d.template_fingerprint <> $2
           ORDER BY t.slug""",
        template,
        content,
    )
    return [row["slug"] for row in rows]


async def insert(db: Connection, rollout: Rollout) -> None:
    """Record a rollout without its targets.

    Raises:
        Conflict: another rollout of this template is alive.
    """
    try:
        async with db.transaction():
            await db.execute(
                """INSERT INTO rollouts (id, operation_id, template, content, to_revision, selector,
                                         options, script, created_by)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)""",
                rollout.id,
                rollout.operation_id,
                rollout.template,
                rollout.content,
                rollout.to_revision,
                msgspec.to_builtins(rollout.selector),
                msgspec.to_builtins(rollout.options),
                rollout.script,
                rollout.created_by,
            )
    except Exception as error:
        if getattr(error, "constraint_name", None) != "rollouts_one_live":
            raise
        raise await _busy(db, rollout.template) from error


async def _busy(db: Connection, template: str) -> Conflict:
    row = await db.fetchrow(
        "SELECT id, state FROM rollouts WHERE template = $1 AND finished_at IS NULL", template
    )
    if row is None:
        return Conflict("another rollout has just ended; try again")
    shown = show("ro", row["id"])
    return Conflict(
        f"rollout {shown} of template {template} is {row['state']}; "
        f"let it end, or: tenantry rollout abort {shown}"
    )


async def add_targets(
    db: Connection, rollout_id: UUID, assigned: Sequence[tuple[Candidate, int]]
) -> None:
    """Put tenants into a rollout, each in its wave, in this order."""
    await db.execute(
        """INSERT INTO rollout_targets (rollout_id, tenant_id, server_id, wave, position,
                                        from_revision)
           SELECT $1, t.* FROM unnest($2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::text[]) AS t
           ON CONFLICT (rollout_id, tenant_id) DO NOTHING""",
        rollout_id,
        [candidate.tenant_id for candidate, _ in assigned],
        [candidate.server_id for candidate, _ in assigned],
        [wave for _, wave in assigned],
        list(range(len(assigned))),
        [candidate.revision for candidate, _ in assigned],
    )


async def get(db: Connection, rollout_id: UUID) -> Rollout:
    """The rollout.

    Raises:
        NotFound: there is none.
    """
    row = await db.fetchrow(f"SELECT {_ROLLOUT} FROM rollouts WHERE id = $1", rollout_id)  # noqa: S608 - the struct's own field names
    if row is None:
        raise NotFound(f"there is no rollout {show('ro', rollout_id)}")
    return _rollout(row)


async def of_operation(db: Connection, operation_id: UUID) -> Rollout:
    """The rollout that this operation carries out.

    Raises:
        NotFound: there is none.
    """
    row = await db.fetchrow(
        f"SELECT {_ROLLOUT} FROM rollouts WHERE operation_id = $1",  # noqa: S608 - the struct's own field names
        operation_id,
    )
    if row is None:
        raise NotFound("there is no such rollout")
    return _rollout(row)


async def lock(db: Connection, rollout_id: UUID) -> None:
    """Hold the rollout's row until the transaction ends."""
    await db.execute("SELECT FROM rollouts WHERE id = $1 FOR UPDATE", rollout_id)


async def state_of(db: Connection, rollout_id: UUID) -> RolloutState | None:
    """The rollout's state alone; its script may be large."""
    state: RolloutState | None = await db.fetchval(
        "SELECT state FROM rollouts WHERE id = $1", rollout_id
    )
    return state


async def page(db: Connection, *, before: UUID | None, limit: int) -> list[Rollout]:
    """Up to ``limit`` rollouts, newest first, older than the rollout ``before``."""
    rows = await db.fetch(
        f"""SELECT {_ROLLOUT} FROM rollouts r
            WHERE $1::uuid IS NULL OR (r.created_at, r.id) <
                  (SELECT x.created_at, x.id FROM rollouts x WHERE x.id = $1)
            ORDER BY created_at DESC, id DESC LIMIT $2""",  # noqa: S608 - the struct's own field names
        before,
        limit,
    )
    return [_rollout(row) for row in rows]


async def counts(db: Connection, rollout_id: UUID) -> list[WaveCounts]:
    """Every wave in order, with how many of its tenants are where."""
    rows = await db.fetch(
        """SELECT r.wave,
                  count(*) FILTER (WHERE r.state = 'waiting') AS waiting,
                  count(*) FILTER (WHERE r.state = 'running') AS running,
                  count(*) FILTER (WHERE r.state = 'done') AS done,
                  count(*) FILTER (WHERE r.state = 'failed') AS failed,
                  count(*) FILTER (WHERE r.state = 'skipped') AS skipped,
                  count(*) FILTER (WHERE r.state = 'running' AND EXISTS (
                      SELECT FROM steps s WHERE s.operation_id = r.operation_id
                      AND s.state = 'running' AND s.error_code = 'lock_timeout')) AS locked
           FROM rollout_targets r WHERE r.rollout_id = $1 GROUP BY r.wave ORDER BY r.wave""",
        rollout_id,
    )
    return [WaveCounts(**dict(row)) for row in rows]


async def targets(
    db: Connection,
    rollout_id: UUID,
    *,
    state: TargetState | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> list[Target]:
    """Up to ``limit`` tenants of a rollout in their order, after the tenant ``after``."""
    rows = await db.fetch(
        """SELECT r.tenant_id, t.slug, s.name AS server, r.wave, r.state, r.from_revision,
                  r.operation_id, r.attempts, r.started_at, r.finished_at,
                  coalesce(r.error_code, p.error_code) AS error_code,
                  coalesce(r.error_message, p.error_message) AS error_message
           FROM rollout_targets r
           JOIN tenants t ON t.id = r.tenant_id
           JOIN servers s ON s.id = r.server_id
           LEFT JOIN steps p ON p.operation_id = r.operation_id AND r.state = 'running'
                AND p.state = 'running'
           WHERE r.rollout_id = $1 AND ($2::text IS NULL OR r.state = $2)
             AND ($3::uuid IS NULL OR (r.wave, r.position, r.tenant_id) >
                  (SELECT x.wave, x.position, x.tenant_id FROM rollout_targets x
                   WHERE x.rollout_id = $1 AND x.tenant_id = $3))
           ORDER BY r.wave, r.position, r.tenant_id LIMIT $4""",
        rollout_id,
        state,
        after,
        limit,
    )
    return [Target(**dict(row)) for row in rows]


async def enter_wave(db: Connection, rollout_id: UUID, wave: int) -> None:
    await db.execute("UPDATE rollouts SET wave = $2 WHERE id = $1", rollout_id, wave)


async def change_state(
    db: Connection,
    rollout_id: UUID,
    *,
    expected: Sequence[RolloutState],
    wanted: RolloutState,
    reason: str | None,
) -> bool:
    """Compare-and-set; whether the rollout is in the wanted state now."""
    changed = await db.fetchval(
        """UPDATE rollouts SET state = $3, reason = $4,
               finished_at = CASE WHEN $3 IN ('running', 'paused', 'halted') THEN NULL
                                  ELSE coalesce(finished_at, clock_timestamp()) END
           WHERE id = $1 AND (state = ANY ($2) OR state = $3) RETURNING true""",
        rollout_id,
        list(expected),
        wanted,
        reason,
    )
    return bool(changed)


async def end(db: Connection, rollout_id: UUID, state: RolloutState, reason: str | None) -> None:
    """The rollout is over, unless it was already."""
    await db.execute(
        """UPDATE rollouts SET state = $2, reason = $3, finished_at = clock_timestamp()
           WHERE id = $1 AND finished_at IS NULL""",
        rollout_id,
        state,
        reason,
    )


async def try_failed_again(db: Connection, rollout_id: UUID) -> int:
    """Failed tenants wait for another attempt, those that wait for a lock start their count anew.

    How many have failed.
    """
    await db.execute(
        """UPDATE steps s SET error_code = NULL, error_message = NULL FROM rollout_targets r
           WHERE r.rollout_id = $1 AND r.state = 'running' AND s.operation_id = r.operation_id
             AND s.state = 'running'""",
        rollout_id,
    )
    again: int = await db.fetchval(
        """WITH again AS (
               UPDATE rollout_targets SET state = 'waiting', finished_at = NULL
               WHERE rollout_id = $1 AND state = 'failed' RETURNING 1)
           SELECT count(*) FROM again""",
        rollout_id,
    )
    return again


async def renew_script(
    db: Connection, rollout_id: UUID, content: str, script: list[dict[str, Any]]
) -> None:
    """What the tenants to come run: the revisions as the files say now."""
    await db.execute(
        "UPDATE rollouts SET content = $2, script = $3 WHERE id = $1", rollout_id, content, script
    )


async def skip_waiting(db: Connection, rollout_id: UUID, reason: str) -> None:
    await db.execute(
        """UPDATE rollout_targets SET state = 'skipped', finished_at = clock_timestamp(),
               error_message = $2
           WHERE rollout_id = $1 AND state = 'waiting'""",
        rollout_id,
        reason,
    )


async def reopen(db: Connection, rollout: Rollout) -> None:
    """Let the operation of a rollout that ended incomplete go on.

    Raises:
        WrongState: its operation has not failed.
    """
    plan = PLANS["rollout"]
    opened = await db.fetchval(
        """UPDATE operations SET state = 'pending', finished_at = NULL, error_code = NULL,
               error_message = NULL, alerted_at = NULL, due_at = clock_timestamp(),
               deadline = clock_timestamp() + $2::interval
           WHERE id = $1 AND state = 'failed' RETURNING true""",
        rollout.operation_id,
        plan.deadline,
    )
    if not opened:
        raise WrongState(f"rollout {show('ro', rollout.id)} is {rollout.state} already")
    await db.execute(
        """UPDATE steps SET state = 'pending', finished_at = NULL, attempts = 0, detail = NULL,
               error_code = NULL, error_message = NULL WHERE operation_id = $1""",
        rollout.operation_id,
    )


async def wake(db: Connection, operation_id: UUID) -> None:
    """The operation is due now."""
    await db.execute(
        """UPDATE operations SET due_at = clock_timestamp()
           WHERE id = $1 AND state IN ('pending', 'waiting')""",
        operation_id,
    )


def _rollout(row: Record) -> Rollout:
    return msgspec.convert(dict(row), Rollout)
