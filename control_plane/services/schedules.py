"""What may be asked about schedules: set one, look at it, go back to the tier's."""

import datetime as dt
from uuid import UUID

import msgspec

from control_plane.catalog import (
    audit,
    backup_schedules,
    backup_turns,
    backup_watch,
    backups,
    pruning,
    tenants,
)
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.backup_schedules import Schedule
from control_plane.catalog.backup_watch import Proof, Watched
from control_plane.catalog.backups import Backup
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import NotFound, WrongState
from control_plane.domain.retention import keep
from control_plane.domain.schedules import (
    Policy,
    Turn,
    check_policy,
    fitting_jitter,
    is_breached,
    next_slot,
    turn_for,
)
from control_plane.domain.tenants import TIERS, Tenant, Tier
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

_BACKED_UP = ("active", "suspended")


class NewSchedule(msgspec.Struct, frozen=True):
    """A request for a schedule: what is left out is as in the tier's policy."""

    cron: str
    timezone: str | None = None
    jitter_minutes: int | None = None
    rpo_minutes: int | None = None
    drill_days: int | None = None
    keep_last: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None


class ShownSchedule(msgspec.Struct, frozen=True):
    """A tenant's schedule and how well it is kept.

    ``turn`` is missing for who is not backed up by schedule (``note`` says why), ``watched`` also
    for who has not had a turn yet. ``prunable`` of its ``stored`` backups are kept by no rule.
    """

    tenant: Tenant
    schedule: Schedule
    turn: Turn | None
    newest: Backup | None
    proof: Proof | None
    watched: Watched | None
    breached: bool
    stored: int
    prunable: int
    note: str | None


async def set_schedule(
    db: Connection, ports: Ports, caller: Caller, slug: str, wanted: NewSchedule
) -> ShownSchedule:
    """Give a tenant a schedule of its own, in place of the one it had.

    Raises:
        NotFound, WrongState: see there.
        Invalid: the schedule cannot be meant; every field that is wrong is named.
    """
    tenant = await _living_tenant(db, caller, slug)
    of_tier = await backup_schedules.of_tier(db, tenant.tier)
    policy = _policy(wanted, of_tier.policy)
    await backup_schedules.put(db, tenant.id, policy, caller.principal.name)
    await _reschedule(db, [tenant.id], policy)
    await audit.record(
        db,
        caller,
        Entry(
            "schedule.set",
            tenant.slug,
            tenant_id=tenant.id,
            facts=msgspec.structs.asdict(policy),
        ),
    )
    return await _show(db, ports, tenant)


async def clear_schedule(db: Connection, ports: Ports, caller: Caller, slug: str) -> ShownSchedule:
    """Let a tenant follow its tier again. Doing it twice is no error.

    Raises:
        NotFound, WrongState: see there.
    """
    tenant = await _living_tenant(db, caller, slug)
    if await backup_schedules.clear(db, tenant.id):
        of_tier = await backup_schedules.of_tier(db, tenant.tier)
        await _reschedule(db, [tenant.id], of_tier.policy)
        await audit.record(db, caller, Entry("schedule.clear", tenant.slug, tenant_id=tenant.id))
    return await _show(db, ports, tenant)


async def get_schedule(db: Connection, ports: Ports, caller: Caller, slug: str) -> ShownSchedule:
    """What a tenant's schedule is, where it comes from, and how well it is kept.

    Raises:
        NotFound: there is no such tenant.
    """
    return await _show(db, ports, await find_tenant(db, caller, slug))


async def list_policies(db: Connection) -> list[tuple[Tier, Schedule]]:
    """The policies of the tiers, in the tiers' order."""
    found = await backup_schedules.of_tiers(db)
    return [(tier, found[tier]) for tier in TIERS if tier in found]


async def set_policy(db: Connection, caller: Caller, tier: Tier, wanted: NewSchedule) -> Schedule:
    """Change what the tenants of a tier follow, but for those with a schedule of their own.

    Raises:
        Invalid: the policy cannot be meant; every field that is wrong is named.
    """
    before = await backup_schedules.of_tier(db, tier)
    policy = _policy(wanted, before.policy)
    await backup_schedules.put_tier(db, tier, policy, caller.principal.name)
    await _reschedule(db, await backup_schedules.followers(db, tier), policy)
    facts = msgspec.structs.asdict(policy)
    await audit.record(db, caller, Entry("schedule.set_tier", tier, facts=facts))
    return await backup_schedules.of_tier(db, tier)


def known_tier(word: str) -> Tier:
    """The tier of this name.

    Raises:
        NotFound: there is none.
    """
    for tier in TIERS:
        if tier == word:
            return tier
    raise NotFound(f"there is no tier {word!r}; there are {', '.join(TIERS)}")


def _policy(wanted: NewSchedule, base: Policy) -> Policy:
    given = {
        name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None
    }
    policy = msgspec.structs.replace(base, **given)
    return check_policy(policy if "jitter_minutes" in given else fitting_jitter(policy))


async def _living_tenant(db: Connection, caller: Caller, slug: str) -> Tenant:
    tenant = await find_tenant(db, caller, slug)
    if tenant.state == "deleted":
        raise WrongState(f"{tenant.slug} is deleted; it is not backed up any more")
    return tenant


async def _reschedule(db: Connection, tenant_ids: list[UUID], policy: Policy) -> None:
    now = await _now(db)
    slot = next_slot(policy, now)
    turns = [(tenant_id, turn_for(policy, tenant_id, slot)) for tenant_id in tenant_ids]
    await backup_turns.reschedule(db, turns, now)


async def _now(db: Connection) -> dt.datetime:
    now: dt.datetime = await db.fetchval("SELECT clock_timestamp()")
    return now


async def _show(db: Connection, ports: Ports, tenant: Tenant) -> ShownSchedule:
    now = await _now(db)
    schedule = await backup_schedules.of_tenant(db, tenant.id)
    policy = schedule.policy
    note = _why_not(ports, tenant)
    turn, watched = None, []
    if note is None:
        known = await backup_turns.find(db, tenant.id)
        turn = known or turn_for(policy, tenant.id, next_slot(policy, now))
        watched = await backup_watch.watched(db, tenant.id)
    stored = (await pruning.candidates(db, [tenant.id]))[tenant.id]
    kept = keep(stored, policy, now, held=tenant.legal_hold)
    return ShownSchedule(
        tenant=await tenants.get(db, tenant.id),
        schedule=schedule,
        turn=turn,
        newest=await backups.newest_complete(db, tenant.id),
        proof=await backup_watch.newest_proof(db, tenant.id),
        watched=watched[0] if watched else None,
        breached=any(is_breached(policy, one.covered_until, now) for one in watched),
        stored=len(stored),
        prunable=len(stored) - len(kept),
        note=note,
    )


def _why_not(ports: Ports, tenant: Tenant) -> str | None:
    """Why the tenant is not backed up by schedule, if it is not."""
    if ports.store is None:
        return "no backup store is configured; set TENANTRY_BACKUP_STORE for API and workers"
    if tenant.state not in _BACKED_UP:
        return f"{tenant.slug} is {tenant.state}; who is active or suspended is backed up"
    return None
