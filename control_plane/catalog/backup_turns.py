"""Whose turn it is to be backed up: one row per tenant, and the queue of those that are due."""

import datetime as dt
from collections.abc import Iterable
from uuid import UUID

import msgspec

from control_plane.catalog.backup_schedules import EFFECTIVE, JOIN_POLICY, policy_of
from control_plane.catalog.pool import Connection
from control_plane.domain.schedules import Policy, Turn

# Operations that read a whole tenant database while they back it up.
_BACKING_UP = ("backup", "archive", "purge")


class Turnless(msgspec.Struct, frozen=True):
    """A tenant without a turn; its slots up to ``since`` are served or before its time."""

    tenant_id: UUID
    since: dt.datetime
    policy: Policy


class Caps(msgspec.Struct, frozen=True):
    """How many backups may run at one time."""

    at_once: int
    per_server: int


async def begin_planning(db: Connection) -> dt.datetime | None:
    """Be the one who plans until the transaction ends; when that was done last.

    ``None`` when somebody else plans right now.
    """
    planned_at: dt.datetime | None = await db.fetchval(
        "SELECT planned_at FROM backup_planning FOR UPDATE SKIP LOCKED"
    )
    return planned_at


async def end_planning(db: Connection, now: dt.datetime) -> None:
    await db.execute("UPDATE backup_planning SET planned_at = $1", now)


async def turnless(db: Connection, limit: int) -> list[Turnless]:
    """Tenants that should have a turn and have none."""
    rows = await db.fetch(
        f"""SELECT t.id, {EFFECTIVE}, coalesce((SELECT max(b.slot_at) FROM backups b
                   WHERE b.tenant_id = t.id AND b.state <> 'failed'), t.activated_at) AS since
            FROM tenants t {JOIN_POLICY}
            WHERE t.state IN ('active', 'suspended', 'archived')
              AND NOT EXISTS (SELECT FROM backup_turns u WHERE u.tenant_id = t.id)
            ORDER BY t.id LIMIT $1""",  # noqa: S608 - the struct's own field names
        limit,
    )
    return [Turnless(row["id"], row["since"], policy_of(row)) for row in rows]


async def insert(db: Connection, turns: Iterable[tuple[UUID, Turn]]) -> None:
    """Give tenants their first turn; one that has a turn keeps it."""
    await db.executemany(
        """INSERT INTO backup_turns (tenant_id, slot_at, due_at) VALUES ($1, $2, $3)
           ON CONFLICT (tenant_id) DO NOTHING""",
        [(tenant_id, turn.slot_at, turn.due_at) for tenant_id, turn in turns],
    )


async def find(db: Connection, tenant_id: UUID) -> Turn | None:
    row = await db.fetchrow(
        "SELECT slot_at, due_at FROM backup_turns WHERE tenant_id = $1", tenant_id
    )
    return Turn(**dict(row)) if row else None


async def take(db: Connection, tenant_id: UUID, now: dt.datetime) -> Turn | None:
    """The turn of a tenant, held until the transaction ends, if it is due and nobody has it."""
    row = await db.fetchrow(
        """SELECT slot_at, due_at FROM backup_turns WHERE tenant_id = $1 AND due_at <= $2
           FOR UPDATE SKIP LOCKED""",
        tenant_id,
        now,
    )
    return Turn(**dict(row)) if row else None


async def move(db: Connection, tenant_id: UUID, turn: Turn) -> None:
    await db.execute(
        "UPDATE backup_turns SET slot_at = $2, due_at = $3 WHERE tenant_id = $1",
        tenant_id,
        turn.slot_at,
        turn.due_at,
    )


async def reschedule(db: Connection, turns: Iterable[tuple[UUID, Turn]], now: dt.datetime) -> None:
    """After a change of policy: the next turns. One that is due already stays due."""
    await db.executemany(
        """UPDATE backup_turns SET slot_at = $2, due_at = $3
           WHERE tenant_id = $1 AND due_at > $4""",
        [(tenant_id, turn.slot_at, turn.due_at, now) for tenant_id, turn in turns],
    )


async def put_off(db: Connection, dues: Iterable[tuple[UUID, dt.datetime]]) -> None:
    """These turns are due later; their slots stay."""
    await db.executemany("UPDATE backup_turns SET due_at = $2 WHERE tenant_id = $1", list(dues))


async def came_between(
    db: Connection, begin: dt.datetime, end: dt.datetime
) -> list[tuple[UUID, Policy]]:
    """Tenants whose turn came after ``begin``, up to ``end``."""
    rows = await db.fetch(
        f"""SELECT t.id, {EFFECTIVE} FROM backup_turns u
            JOIN tenants t ON t.id = u.tenant_id {JOIN_POLICY}
            WHERE u.due_at > $1 AND u.due_at <= $2""",  # noqa: S608 - the struct's own field names
        begin,
        end,
    )
    return [(row["id"], policy_of(row)) for row in rows]


async def put_back_failed(
    db: Connection, now: dt.datetime, *, pause: dt.timedelta, attempts: int
) -> None:
    """A slot whose backup failed a while ago is due again, up to ``attempts`` times in all.

    Not when something newer was begun for the tenant, or its next turn has come.
    """
    await db.execute(
        """UPDATE backup_turns u SET slot_at = f.slot_at, due_at = $1
           FROM (SELECT DISTINCT ON (tenant_id) tenant_id, slot_at, finished_at, created_at
                 FROM backups WHERE state = 'failed' AND slot_at IS NOT NULL
                   AND finished_at > $1::timestamptz - interval '1 day'
                 ORDER BY tenant_id, finished_at DESC) f
           WHERE u.tenant_id = f.tenant_id AND u.due_at > $1 AND u.slot_at > f.slot_at
             AND f.finished_at <= $1::timestamptz - $2::interval
             AND NOT EXISTS (SELECT FROM backups b WHERE b.tenant_id = f.tenant_id
                             AND b.created_at > f.created_at)
             AND (SELECT count(*) FROM backups b WHERE b.tenant_id = f.tenant_id
                  AND b.slot_at = f.slot_at AND b.state = 'failed') < $3""",
        now,
        pause,
        attempts,
    )


async def is_served(db: Connection, tenant_id: UUID, slot_at: dt.datetime) -> bool:
    """Whether the slot has a backup that was made, or is being made."""
    return bool(
        await db.fetchval(
            """SELECT EXISTS (SELECT FROM backups
               WHERE tenant_id = $1 AND slot_at = $2 AND state <> 'failed')""",
            tenant_id,
            slot_at,
        )
    )


_NEXT_UP = """
    WITH busy AS (
        SELECT d.server_id, count(*) AS running FROM operations o
          LEFT JOIN databases d ON d.tenant_id = o.tenant_id AND d.purpose = 'primary'
         WHERE o.kind = ANY($4) AND o.state IN ('pending', 'running', 'waiting', 'cancelling')
         GROUP BY d.server_id
    ), waiting AS (
        SELECT u.tenant_id, d.server_id,
               extract(epoch FROM $1::timestamptz - u.due_at)
                   / coalesce(s.rpo_minutes, p.rpo_minutes) AS age
          FROM backup_turns u
          JOIN tenants t ON t.id = u.tenant_id AND t.state IN ('active', 'suspended')
          JOIN databases d ON d.tenant_id = t.id AND d.purpose = 'primary'
          JOIN servers v ON v.id = d.server_id AND v.reachable
          JOIN backup_policies p ON p.tier = t.tier
          LEFT JOIN backup_schedules s ON s.tenant_id = t.id
         WHERE u.due_at <= $1
           AND NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = t.id
                           AND o.state IN ('pending', 'running', 'waiting', 'cancelling'))
    ), ordered AS (
        SELECT *, row_number() OVER (PARTITION BY server_id ORDER BY age DESC, tenant_id) AS place
          FROM waiting
    )
    SELECT o.tenant_id FROM ordered o LEFT JOIN busy b ON b.server_id = o.server_id
     WHERE o.place <= $3 - coalesce(b.running, 0)
     ORDER BY o.age DESC, o.tenant_id
     LIMIT greatest(0, $2 - (SELECT coalesce(sum(running), 0) FROM busy))
"""


async def next_up(db: Connection, now: dt.datetime, caps: Caps) -> list[UUID]:
    """The tenants to begin with now: those that waited longest, measured by their RPO.

    So who may lose little comes sooner, and nobody is overtaken for ever. Tenants that some
    operation works on, or whose server is away, keep their place for later.
    """
    rows = await db.fetch(_NEXT_UP, now, caps.at_once, caps.per_server, list(_BACKING_UP))
    return [row["tenant_id"] for row in rows]
