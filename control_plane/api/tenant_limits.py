"""A tenant's limits over HTTP: those in force, its own in place of the tier's, the tier's again."""

from typing import Annotated, TypeAlias

import msgspec
from litestar import Controller, Response, delete, get, put
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from control_plane.api.acceptance import LOCATION, REHEARSED, DryRun, accept_or_rehearse
from control_plane.api.context import Reading, Writing
from control_plane.api.documents import refusals
from control_plane.api.views import OperationView
from control_plane.api.words import PRINTABLE
from control_plane.domain.tenants import OwnLimits, Tier, TierLimits
from control_plane.services import limits
from control_plane.services.limits import TenantLimits

Size: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=86_400_000)]


class LimitsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tenant's own limits; what is left out is its tier's. 0 ms means no limit."""

    pool_size: Size | None = None
    session_pool_size: Size | None = None
    connections: Size | None = None
    statement_timeout_ms: Milliseconds | None = None
    idle_in_transaction_ms: Milliseconds | None = None
    reason: Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=500)] | None = None


class LimitsView(msgspec.Struct, frozen=True):
    """Limits in force; ``own`` are the tenant's own, ``of_tier`` what it has without them.

    Pools are those of each pooler process, connections those of one login.
    """

    tenant: str
    tier: Tier
    in_force: dict[str, int]
    of_tier: dict[str, int]
    own: dict[str, int]
    reason: str | None


class TenantLimitsController(Controller):
    """How much of its server and its poolers a tenant may use."""

    path = "/tenants/{tenant:str}/limits"
    tags = ("tenants",)

    @get(operation_id="getLimits", responses=refusals(404))
    async def get_limits(self, tenant: FromPath[str], asking: Reading) -> LimitsView:
        """The limits in force, and which of them are the tenant's own."""
        async with asking.ports.catalog.connection() as db:
            return _view(await limits.limits_of(db, asking.caller, tenant))

    @put(
        operation_id="setLimits",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409, 413)},
        response_headers=[LOCATION],
    )
    async def set_limits(
        self,
        tenant: FromPath[str],
        data: JSONBody[LimitsBody],
        changing: Writing,
        *,
        dry_run: DryRun = False,
    ) -> Response[OperationView]:
        """Give a tenant limits of its own; no client is cut off."""
        own = OwnLimits(**{name: getattr(data, name) for name in OwnLimits.__struct_fields__})
        return await accept_or_rehearse(
            changing,
            lambda db: limits.set_limits(db, changing.caller, tenant, own, reason=data.reason),
            dry_run=dry_run,
        )

    @delete(
        operation_id="resetLimits",
        status_code=202,
        responses={**REHEARSED, **refusals(404, 409)},
        response_headers=[LOCATION],
    )
    async def reset_limits(
        self, tenant: FromPath[str], changing: Writing, *, dry_run: DryRun = False
    ) -> Response[OperationView]:
        """Give a tenant the limits of its tier again."""
        return await accept_or_rehearse(
            changing,
            lambda db: limits.reset_limits(db, changing.caller, tenant),
            dry_run=dry_run,
        )


def _view(found: TenantLimits) -> LimitsView:
    own = msgspec.to_builtins(found.own)
    return LimitsView(
        tenant=found.tenant.slug,
        tier=found.tenant.tier,
        in_force=_flat(found.in_force),
        of_tier=_flat(found.of_tier),
        own={name: value for name, value in own.items() if value is not None},
        reason=found.reason,
    )


def _flat(found: TierLimits) -> dict[str, int]:
    return {
        "pool_size": found.pool_size,
        "session_pool_size": found.session_pool_size,
        **msgspec.to_builtins(found.login),
    }
