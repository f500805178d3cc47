"""Backup: a tenant's data in the store, encrypted, read back, and on record."""

from control_plane.domain.plans import PLANS
from control_plane.services import backup_planning
from control_plane.services.ports import Ports
from workers.engine.step import Outcome, StepContext, Verb
from workers.steps import backing_up
from workers.steps.backing_up import upload_dump, verify_object, write_manifest


async def prepare_backup(ctx: StepContext) -> Outcome:
    """The backup is on record, and there is a key to seal it with."""
    return await backing_up.prepare(ctx, "manual")


async def record_backup(ctx: StepContext) -> Outcome:
    """The catalog knows the backup."""
    return await backing_up.record(ctx)


async def begin_next(ports: Ports) -> None:
    """The backups whose turn it is take the place of one that ended."""
    await backup_planning.plan_backups(ports, await backup_planning.catalog_time(ports))


VERB = Verb(
    plan=PLANS["backup"],
    steps=(prepare_backup, upload_dump, verify_object, write_manifest, record_backup),
    abandon=backing_up.give_up,
    follow=begin_next,
)
