"""Beginning what is due by itself: backups by schedule, drills in rotation, the watch over RPOs.

Each function may run late, twice at once or not at all. ``now`` is the catalog's clock, so that a
wrong clock of a worker neither skips a slot nor serves one twice.
"""

import datetime as dt
from uuid import UUID

import structlog

from control_plane.catalog import audit, backup_schedules, backup_turns, backup_watch, backups
from control_plane.catalog import tenants as catalog_tenants
from control_plane.catalog.audit import Entry
from control_plane.catalog.backup_turns import Caps
from control_plane.catalog.backup_watch import DrillRules, Watched
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import CatalogUnavailable, OperationInProgress, TenantryError
from control_plane.domain.operations import Operation
from control_plane.domain.schedules import (
    catch_up,
    first_turn,
    is_breached,
    next_slot,
    present_turn,
    turn_for,
)
from control_plane.services.backups import begin_backup, begin_verification
from control_plane.services.ports import Ports

_log = structlog.get_logger(__name__)
_SYSTEM = "system"
_NEW_TURNS_AT_ONCE = 1000
# Longer than any pause between two looks: what came meanwhile came while nobody planned.
_OUTAGE = dt.timedelta(minutes=5)
_RETRY_PAUSE = dt.timedelta(minutes=30)
_ATTEMPTS_OF_A_SLOT = 3
_AFTER_TROUBLE = dt.timedelta(minutes=5)
_DRILL_RETRY_PAUSE = dt.timedelta(hours=6)
# A drill is begun early enough to be over, even after a failure, before the policy asks for it;
# the first one not while a new tenant is still being set up.
_SHARE_BEFORE_A_DRILL = 0.8
_FIRST_DRILL_AFTER = dt.timedelta(days=1)


async def catalog_time(ports: Ports) -> dt.datetime:
    """The present instant on the catalog's clock."""
    async with ports.catalog.connection() as db:
        now: dt.datetime = await db.fetchval("SELECT clock_timestamp()")
    return now


async def plan_backups(ports: Ports, now: dt.datetime) -> None:
    """Give every tenant its turn, and begin the backups that are due, as many as may run."""
    if ports.store is None:
        return
    async with ports.catalog.transaction() as planning:
        planned_at = await backup_turns.begin_planning(planning)
        if planned_at is None:
            return
        async with ports.catalog.transaction() as db:
            await _give_turns(db, now)
            if now - planned_at > _OUTAGE:
                await _spread_catch_ups(db, planned_at, now)
            await backup_turns.put_back_failed(
                db, now, pause=_RETRY_PAUSE, attempts=_ATTEMPTS_OF_A_SLOT
            )
        caps = Caps(ports.settings.backup.at_once, ports.settings.backup.per_server)
        async with ports.catalog.connection() as db:
            due = await backup_turns.next_up(db, now, caps)
        for tenant_id in due:
            await _try_to_begin(ports, tenant_id, now)
        await backup_turns.end_planning(planning, now)


async def plan_drills(ports: Ports, now: dt.datetime) -> None:
    """Begin to prove backups of the tenants whose last proof is oldest."""
    if ports.store is None:
        return
    async with ports.catalog.transaction() as planning:
        if await backup_turns.begin_planning(planning) is None:
            return
        async with ports.catalog.connection() as db:
            due = await backup_watch.drills_due(db, now, _drill_rules(ports))
        for backup_id in due:
            await _begin_drill(ports, backup_id, now)


async def watch_rpo(ports: Ports, now: dt.datetime) -> None:
    """Tell once of every tenant that would lose more than its RPO allows, and when it is mended."""
    if ports.store is None:
        return
    async with ports.catalog.connection() as db:
        watched = await backup_watch.watched(db)
    for tenant in watched:
        breached = is_breached(tenant.policy, tenant.covered_until, now)
        if breached != (tenant.breached_at is not None):
            async with ports.catalog.transaction() as db:
                await _tell_of_rpo(db, tenant, now, breached=breached)


async def _give_turns(db: Connection, now: dt.datetime) -> None:
    found = await backup_turns.turnless(db, _NEW_TURNS_AT_ONCE)
    await backup_turns.insert(
        db,
        [(one.tenant_id, first_turn(one.policy, one.tenant_id, one.since, now)) for one in found],
    )


async def _spread_catch_ups(db: Connection, planned_at: dt.datetime, now: dt.datetime) -> None:
    missed = await backup_turns.came_between(db, planned_at, now)
    await backup_turns.put_off(
        db, [(tenant_id, catch_up(policy, tenant_id, now)) for tenant_id, policy in missed]
    )


async def _try_to_begin(ports: Ports, tenant_id: UUID, now: dt.datetime) -> None:
    """One tenant that cannot be backed up now does not stand in the way of others."""
    try:
        async with ports.catalog.transaction() as db:
            operation = await _begin_backup(db, ports, tenant_id, now)
    except (OperationInProgress, CatalogUnavailable):
        return
    except TenantryError as error:
        _log.warning("backup_not_begun", tenant=str(tenant_id), error=error.message)
        async with ports.catalog.connection() as db:
            await backup_turns.put_off(db, [(tenant_id, now + _AFTER_TROUBLE)])
        return
    if operation is not None:
        await ports.doorbell.ring(operation.id, operation.queue)


async def _begin_backup(
    db: Connection, ports: Ports, tenant_id: UUID, now: dt.datetime
) -> Operation | None:
    turn = await backup_turns.take(db, tenant_id, now)
    if turn is None:
        return None
    policy = (await backup_schedules.of_tenant(db, tenant_id)).policy
    slot = present_turn(policy, turn, now).slot_at
    await backup_turns.move(db, tenant_id, turn_for(policy, tenant_id, next_slot(policy, now)))
    if await backup_turns.is_served(db, tenant_id, slot):
        return None
    tenant = await catalog_tenants.get(db, tenant_id)
    return await begin_backup(db, ports, _SYSTEM, tenant, cause="schedule", slot_at=slot)


def _drill_rules(ports: Ports) -> DrillRules:
    return DrillRules(
        at_once=(ports.settings.backup.at_once + 1) // 2,
        per_server=1,
        share=_SHARE_BEFORE_A_DRILL,
        first_after=_FIRST_DRILL_AFTER,
    )


async def _begin_drill(ports: Ports, backup_id: UUID, now: dt.datetime) -> None:
    """Another one of the tenant waits, however this one ends."""
    async with ports.catalog.connection() as db:
        backup = await backups.get(db, backup_id)
        await backup_watch.pause_drills(db, backup.tenant_id, now + _DRILL_RETRY_PAUSE)
    try:
        async with ports.catalog.transaction() as db:
            operation = await begin_verification(db, ports, _SYSTEM, backup, cause="rotation")
    except TenantryError as error:
        _log.warning("drill_not_begun", tenant=str(backup.tenant_id), error=error.message)
        return
    await ports.doorbell.ring(operation.id, operation.queue)


async def _tell_of_rpo(
    db: Connection, tenant: Watched, now: dt.datetime, *, breached: bool
) -> None:
    facts: dict[str, object] = {
        "rpo_minutes": tenant.policy.rpo_minutes,
        "covered_until": tenant.covered_until.isoformat(),
    }
    if breached and await backup_watch.mark_breached(db, tenant.tenant_id, now):
        _log.error("rpo_breached", tenant=tenant.slug, **facts)
        entry = Entry(
            "backup.rpo_breached",
            tenant.slug,
            tenant_id=tenant.tenant_id,
            outcome="failed",
            facts=facts,
        )
        await audit.record_system(db, entry)
    elif not breached and await backup_watch.mark_mended(db, tenant.tenant_id):
        entry = Entry("backup.rpo_mended", tenant.slug, tenant_id=tenant.tenant_id, facts=facts)
        await audit.record_system(db, entry)
