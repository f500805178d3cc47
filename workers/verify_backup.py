"""Verify a backup: restored, compared and examined in a scratch database, then on the ledger."""

from control_plane.domain.plans import PLANS
from workers.engine.step import Outcome, StepContext, Verb
from workers.steps import drills
from workers.steps.scratch import (
    check_backup,
    compare_content,
    create_scratch,
    drop_scratch,
    examine_scratch,
    fetch_object,
    load_dump,
)


async def record_drill(ctx: StepContext) -> Outcome:
    """The ledger has a line for this restore: what it read, how long it took, that it is equal."""
    return await drills.record(ctx)


VERB = Verb(
    plan=PLANS["verify_backup"],
    steps=(
        check_backup,
        fetch_object,
        create_scratch,
        load_dump,
        compare_content,
        examine_scratch,
        record_drill,
        drop_scratch,
    ),
    abandon=drills.give_up,
)
