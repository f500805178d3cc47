"""Backup: a tenant's data in the store, encrypted, read back, and on record."""

from control_plane.domain.plans import PLANS
from workers.engine.step import Outcome, StepContext, Verb
from workers.steps import backing_up
from workers.steps.backing_up import upload_dump, verify_object, write_manifest


async def prepare_backup(ctx: StepContext) -> Outcome:
    """The backup is on record, and there is a key to seal it with."""
    return await backing_up.prepare(ctx, "manual")


async def record_backup(ctx: StepContext) -> Outcome:
    """The catalog knows the backup."""
    return await backing_up.record(ctx)


VERB = Verb(
    plan=PLANS["backup"],
    steps=(prepare_backup, upload_dump, verify_object, write_manifest, record_backup),
    abandon=backing_up.give_up,
)
