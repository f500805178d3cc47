"""Suspend: cut a tenant off everywhere within seconds, and keep its data.

The cut that counts is in Postgres: logins closed, then their sessions ended. The poolers only
follow, so that an agent that is away cannot keep anybody connected.
"""

from control_plane.catalog import tenants
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, StepContext, Verb
from workers.steps.closing import (
    revoke_logins,
    terminate_sessions,
    verify_closed,
    wait_poolers,
    withdraw_route,
)


async def mark_suspended(ctx: StepContext) -> Outcome:
    """The tenant is suspended."""
    async with ctx.catalog_write() as db:
        await tenants.change_state(db, ctx.tenant_id, expected="active", wanted="suspended")
    return Done()


VERB = Verb(
    plan=PLANS["suspend"],
    steps=(
        withdraw_route,
        revoke_logins,
        terminate_sessions,
        wait_poolers,
        verify_closed,
        mark_suspended,
    ),
)
