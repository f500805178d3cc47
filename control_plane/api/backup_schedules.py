"""Schedules over HTTP: a tenant's own, and the policies of the tiers that the others follow."""

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Response, delete, get, put
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.acceptance import DryRun
from control_plane.api.context import Changing, Reading, View, Writing, answer, effect
from control_plane.api.documents import refusals
from control_plane.api.words import PRINTABLE
from control_plane.catalog.backup_schedules import Schedule
from control_plane.catalog.backup_watch import Proof
from control_plane.catalog.backups import Backup
from control_plane.catalog.pool import Connection
from control_plane.domain.backups import DrillCause
from control_plane.domain.names import show
from control_plane.domain.schedules import LIMITS, PolicySource
from control_plane.domain.tenants import Tier
from control_plane.services import schedules
from control_plane.services.rehearsal import rehearse
from control_plane.services.requests import Effect
from control_plane.services.schedules import NewSchedule, ShownSchedule, known_tier

# The service says what is wrong with them; the schema only has to show their form.
Cron = Annotated[str, Meta(extra_json_schema={"pattern": r"^\S+ \S+ \S+ \S+ \S+$"})]
TimeZone = Annotated[str, Meta(pattern=PRINTABLE, max_length=100)]


def _limited(field: str) -> Meta:
    least, most = LIMITS[field]
    return Meta(ge=least, le=most)


class BackupScheduleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule, or the policy of a tier. What is left out is as in the tier's policy now.

    ``cron`` has five fields and is read in ``timezone``. Each tenant's backup begins up to
    ``jitter_minutes`` later, always by the same share of them. The newest backup may be
    ``rpo_minutes`` old, the newest verified restore ``drill_days``.
    """

    cron: Cron
    timezone: TimeZone | None = None
    jitter_minutes: Annotated[int, _limited("jitter_minutes")] | None = None
    rpo_minutes: Annotated[int, _limited("rpo_minutes")] | None = None
    drill_days: Annotated[int, _limited("drill_days")] | None = None
    keep_last: Annotated[int, _limited("keep_last")] | None = None
    keep_daily: Annotated[int, _limited("keep_daily")] | None = None
    keep_weekly: Annotated[int, _limited("keep_weekly")] | None = None
    keep_monthly: Annotated[int, _limited("keep_monthly")] | None = None
    keep_yearly: Annotated[int, _limited("keep_yearly")] | None = None


class BackupPolicyView(msgspec.Struct, frozen=True):
    """When the tenants of a tier are backed up, and how long that is kept."""

    tier: Tier
    cron: str
    timezone: str
    jitter_minutes: int
    rpo_minutes: int
    drill_days: int
    keep_last: int
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    keep_yearly: int
    changed_by: str
    changed_at: dt.datetime


class BackupPolicies(msgspec.Struct, frozen=True):
    """The policy of every tier."""

    items: list[BackupPolicyView]


class NewestBackupView(msgspec.Struct, frozen=True):
    """The complete backup with the youngest data."""

    id: str
    snapshot_at: dt.datetime
    verified_at: dt.datetime | None


class NewestDrillView(msgspec.Struct, frozen=True):
    """The last restore that was compared and found equal."""

    backup: str
    cause: DrillCause
    finished_at: dt.datetime
    seconds: float


class RpoView(msgspec.Struct, frozen=True):
    """Whether what would be lost now is what may be lost.

    ``unwatched``: the tenant is not backed up by schedule, or has not had its first turn.
    """

    state: Literal["met", "breached", "unwatched"]
    covered_until: dt.datetime | None
    breached_at: dt.datetime | None


class BackupScheduleView(BackupPolicyView, frozen=True, kw_only=True):
    """What a tenant follows, and how well that is kept. ``source``: its tier's, or its own.

    The next backup is for ``next_slot_at`` and begins from ``next_due_at`` on. Of the
    ``stored_backups``, ``prunable_backups`` are kept by no rule. ``note`` says why nothing runs.
    """

    tenant: str
    source: PolicySource
    next_slot_at: dt.datetime | None
    next_due_at: dt.datetime | None
    newest_backup: NewestBackupView | None
    newest_drill: NewestDrillView | None
    rpo: RpoView
    stored_backups: int
    prunable_backups: int
    note: str | None


class BackupScheduleController(Controller):
    """When a tenant is backed up, and how long that is kept."""

    tags = ("backups",)

    @get(
        "/tenants/{tenant:str}/backup-schedule",
        operation_id="getBackupSchedule",
        responses=refusals(404),
    )
    async def get_schedule(self, tenant: FromPath[str], asking: Reading) -> BackupScheduleView:
        """What a tenant follows, where that comes from, and how well it is kept."""
        async with asking.ports.catalog.connection() as db:
            return schedule_view(
                await schedules.get_schedule(db, asking.ports, asking.caller, tenant)
            )

    @put(
        "/tenants/{tenant:str}/backup-schedule",
        operation_id="setBackupSchedule",
        responses=refusals(404, 409, 413),
    )
    async def set_schedule(
        self,
        tenant: FromPath[str],
        data: JSONBody[BackupScheduleBody],
        changing: Writing,
        *,
        dry_run: DryRun = False,
    ) -> Response[BackupScheduleView]:
        """Give a tenant a schedule of its own, in place of the one it had."""

        async def carry_out(db: Connection) -> BackupScheduleView:
            wanted = new_schedule(data)
            return schedule_view(
                await schedules.set_schedule(db, changing.ports, changing.caller, tenant, wanted)
            )

        return await _change(changing, carry_out, BackupScheduleView, dry_run=dry_run)

    @delete(
        "/tenants/{tenant:str}/backup-schedule",
        operation_id="clearBackupSchedule",
        status_code=200,
        responses=refusals(404, 409, 413),
    )
    async def clear_schedule(
        self, tenant: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[BackupScheduleView]:
        """Let a tenant follow its tier again; doing it twice is no error."""

        async def carry_out(db: Connection) -> BackupScheduleView:
            return schedule_view(
                await schedules.clear_schedule(db, changing.ports, changing.caller, tenant)
            )

        return await _change(changing, carry_out, BackupScheduleView, dry_run=dry_run)

    @get("/backup-policies", operation_id="listBackupPolicies", responses=refusals())
    async def list_policies(self, asking: Reading) -> BackupPolicies:
        """What the tenants of each tier follow that have no schedule of their own."""
        async with asking.ports.catalog.connection() as db:
            found = await schedules.list_policies(db)
        return BackupPolicies([policy_view(tier, schedule) for tier, schedule in found])

    @put(
        "/backup-policies/{tier:str}",
        operation_id="setBackupPolicy",
        responses=refusals(404, 409, 413),
    )
    async def set_policy(
        self,
        tier: FromPath[str],
        data: JSONBody[BackupScheduleBody],
        changing: Writing,
        *,
        dry_run: DryRun = False,
    ) -> Response[BackupPolicyView]:
        """Change what the tenants of a tier follow, at once and for all of them."""

        async def carry_out(db: Connection) -> BackupPolicyView:
            known = known_tier(tier)
            changed = await schedules.set_policy(db, changing.caller, known, new_schedule(data))
            return policy_view(known, changed)

        return await _change(changing, carry_out, BackupPolicyView, dry_run=dry_run)


async def _change(
    changing: Changing,
    work: Callable[[Connection], Awaitable[View]],
    view: type[View],
    *,
    dry_run: bool,
) -> Response[Any]:
    """Do it, or tell what would be true then and take it back."""
    if dry_run:
        return Response(await rehearse(changing.ports, work), status_code=200)

    async def carry_out(db: Connection) -> Effect:
        return effect(200, await work(db))

    return answer(await changing.perform(carry_out), view)


def new_schedule(body: BackupScheduleBody) -> NewSchedule:
    """The request that a body stands for."""
    return NewSchedule(**msgspec.structs.asdict(body))


def policy_view(tier: Tier, schedule: Schedule) -> BackupPolicyView:
    """The JSON of a tier's policy."""
    return BackupPolicyView(
        tier=tier,
        **msgspec.structs.asdict(schedule.policy),
        changed_by=schedule.changed_by,
        changed_at=schedule.changed_at,
    )


def schedule_view(shown: ShownSchedule) -> BackupScheduleView:
    """The JSON of a tenant's schedule."""
    return BackupScheduleView(
        tenant=shown.tenant.slug,
        tier=shown.tenant.tier,
        source=shown.schedule.source,
        **msgspec.structs.asdict(shown.schedule.policy),
        changed_by=shown.schedule.changed_by,
        changed_at=shown.schedule.changed_at,
        next_slot_at=shown.turn.slot_at if shown.turn else None,
        next_due_at=shown.turn.due_at if shown.turn else None,
        newest_backup=_newest_view(shown.newest),
        newest_drill=_drill_view(shown.proof),
        rpo=_rpo_view(shown),
        stored_backups=shown.stored,
        prunable_backups=shown.prunable,
        note=shown.note,
    )


def _newest_view(backup: Backup | None) -> NewestBackupView | None:
    if backup is None or backup.snapshot_at is None:
        return None
    return NewestBackupView(show("bk", backup.id), backup.snapshot_at, backup.verified_at)


def _drill_view(proof: Proof | None) -> NewestDrillView | None:
    if proof is None:
        return None
    seconds = (proof.finished_at - proof.started_at).total_seconds()
    return NewestDrillView(show("bk", proof.backup_id), proof.cause, proof.finished_at, seconds)


def _rpo_view(shown: ShownSchedule) -> RpoView:
    if shown.watched is None:
        return RpoView("unwatched", None, None)
    return RpoView(
        "breached" if shown.breached else "met",
        shown.watched.covered_until,
        shown.watched.breached_at,
    )
