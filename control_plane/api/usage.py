"""Usage over HTTP: what a tenant used, what is inside its database, who disturbs whom."""

import datetime as dt
from typing import Annotated, Any, TypeAlias

import msgspec
from litestar import Controller, get
from litestar.params import FromPath, QueryParameter

from control_plane.adapters.server_usage import Statement
from control_plane.adapters.table_usage import TableFacts, UnindexedKey, UnusedIndex
from control_plane.api.context import Reading
from control_plane.api.documents import refusals
from control_plane.api.words import NAME_OR_ID
from control_plane.catalog.disturbances import Disturbance
from control_plane.domain.noise import Evidence, Level
from control_plane.domain.usage import Usage
from control_plane.services import noise, usage
from control_plane.services.noise import Named, Rung, ServerNoise
from control_plane.services.usage import HOURS, MOST_HOURS, TenantUsage

Hours: TypeAlias = Annotated[
    int, QueryParameter(ge=1, le=MOST_HOURS, description="How far back, in hours")
]
OnServer: TypeAlias = Annotated[
    str | None, QueryParameter(pattern=NAME_OR_ID, description="Only this server")
]


class BucketView(msgspec.Struct, frozen=True):
    """One bucket of a chart: ``busy`` is how many sessions executed statements at any time."""

    at: dt.datetime
    busy: float
    usage: Usage


class SuffererView(msgspec.Struct, frozen=True):
    """A neighbour that waits, with the numbers in words."""

    tenant: str
    words: str


class DisturbanceView(msgspec.Struct, frozen=True):
    """A tenant that uses more than its share; ``verdict`` says so with the numbers."""

    tenant: str
    server: str
    level: Level
    verdict: str
    evidence: list[Evidence]
    sufferers: list[SuffererView]
    began_at: dt.datetime
    seen_at: dt.datetime


class UsageView(msgspec.Struct, frozen=True):
    """A tenant's use since ``since``, in buckets of ``grain_minutes``; idle ones are left out.

    ``shares`` are those of what its server did in the same time, from 0 to 1.
    """

    tenant: str
    server: str | None
    since: dt.datetime
    until: dt.datetime
    grain_minutes: int
    size_bytes: int | None
    sized_at: dt.datetime | None
    total: Usage
    server_total: Usage
    shares: dict[str, float]
    disturbance: DisturbanceView | None
    buckets: list[BucketView]


class InsideView(msgspec.Struct, frozen=True):
    """What is inside a tenant's database now. ``statements`` is null where nobody counts them."""

    tenant: str
    tables: list[TableFacts]
    unused_indexes: list[UnusedIndex]
    unindexed_keys: list[UnindexedKey]
    statements: list[Statement] | None


class RankedView(msgspec.Struct, frozen=True):
    """A tenant in the order of its use. ``pool_wait_ms`` is per transaction."""

    tenant: str
    rates: dict[str, float]
    shares: dict[str, float]
    connections: int
    pool_wait_ms: float
    pool_waiting: int


class ActionView(msgspec.Struct, frozen=True):
    """A rung of the ladder, its price, and what stands against it if anything does."""

    rung: Rung
    words: str
    cost: str
    why_not: str | None
    limits: dict[str, Any] | None
    server: str | None


class NamedView(msgspec.Struct, frozen=True):
    """A tenant that disturbs its server, and what may be done, the gentlest first."""

    tenant: str
    level: Level
    verdict: str
    evidence: list[Evidence]
    sufferers: list[SuffererView]
    since: dt.datetime | None
    actions: list[ActionView]


class ServerNoiseView(msgspec.Struct, frozen=True):
    """A server in the last ``seconds``: ``busy`` sessions, who uses most, who too much."""

    server: str
    seconds: float
    busy: float
    ranked: list[RankedView]
    noisy: list[NamedView]
    problem: str | None


class NoisyPage(msgspec.Struct, frozen=True):
    items: list[ServerNoiseView]


class MoveProposalView(msgspec.Struct, frozen=True):
    """Where a tenant could go, why there, and the price; nothing has begun."""

    tenant: str
    server: str
    reason: str
    cost: str
    hot: bool


class UsageController(Controller):
    """What one tenant uses."""

    path = "/tenants/{tenant:str}"
    tags = ("usage",)

    @get("/usage", operation_id="getUsage", responses=refusals(404))
    async def get_usage(
        self, tenant: FromPath[str], asking: Reading, hours: Hours = HOURS
    ) -> UsageView:
        """What a tenant used lately: a chart, sums, and its share of the server."""
        async with asking.ports.catalog.connection() as db:
            return usage_view(await usage.usage_of(db, asking.caller, tenant, hours=hours))

    @get("/tables", operation_id="lookInside", responses=refusals(404, 503))
    async def look_inside(self, tenant: FromPath[str], asking: Reading) -> InsideView:
        """Sizes and scans of tables, indexes unused or missing, slow statements; asked now."""
        found = await usage.look_inside(asking.ports, asking.caller, tenant)
        return InsideView(
            found.tenant.slug,
            found.tables.tables,
            found.tables.unused_indexes,
            found.tables.unindexed_keys,
            found.statements,
        )

    @get("/moves/proposal", operation_id="proposeMove", responses=refusals(404, 409))
    async def propose_move(self, tenant: FromPath[str], asking: Reading) -> MoveProposalView:
        """Where the tenant could be moved to, and what that costs."""
        async with asking.ports.catalog.connection() as db:
            found = await noise.propose_move(db, asking.caller, tenant)
        return MoveProposalView(found.tenant, found.server, found.reason, found.cost, found.hot)


class NoisyController(Controller):
    """Who disturbs whom."""

    path = "/noisy"
    tags = ("usage",)

    @get(operation_id="getNoisy", responses=refusals(404))
    async def get_noisy(self, asking: Reading, server: OnServer = None) -> NoisyPage:
        """Each server: who uses most of it, who disturbs whom, and what may be done."""
        async with asking.ports.catalog.connection() as db:
            found = await noise.noisy(db, server=server)
        return NoisyPage([_server_view(one) for one in found])


def usage_view(found: TenantUsage) -> UsageView:
    """The JSON of a tenant's use."""
    milliseconds = found.grain * 60 * 1000
    return UsageView(
        tenant=found.tenant.slug,
        server=found.tenant.server,
        since=found.since,
        until=found.until,
        grain_minutes=found.grain,
        size_bytes=found.size_bytes,
        sized_at=found.sized_at,
        total=found.total,
        server_total=found.of_server,
        shares={name: round(value, 4) for name, value in found.shares.items()},
        disturbance=disturbance_view(found.disturbance) if found.disturbance else None,
        buckets=[
            BucketView(one.at, round(one.usage.busy_ms / milliseconds, 4), one.usage)
            for one in found.buckets
        ],
    )


def disturbance_view(found: Disturbance) -> DisturbanceView:
    """The JSON of a disturbance."""
    return DisturbanceView(
        tenant=found.slug,
        server=found.server,
        level=found.level,
        verdict=found.verdict,
        evidence=found.evidence,
        sufferers=[SuffererView(one.slug, one.words) for one in found.sufferers],
        began_at=found.began_at,
        seen_at=found.seen_at,
    )


def _server_view(found: ServerNoise) -> ServerNoiseView:
    return ServerNoiseView(
        server=found.server,
        seconds=round(found.seconds, 1),
        busy=round(found.busy, 3),
        ranked=[
            RankedView(
                tenant=one.slug,
                rates={name: round(value, 3) for name, value in one.rates.items()},
                shares={name: round(value, 4) for name, value in one.shares.items()},
                connections=one.connections,
                pool_wait_ms=round(one.pool_wait_ms, 2),
                pool_waiting=one.pool_waiting,
            )
            for one in found.ranked
        ],
        noisy=[_named_view(one) for one in found.named],
        problem=found.problem,
    )


def _named_view(found: Named) -> NamedView:
    verdict = found.verdict
    return NamedView(
        tenant=verdict.slug,
        level=verdict.level,
        verdict=verdict.words,
        evidence=verdict.evidence,
        sufferers=[SuffererView(one.slug, one.words) for one in verdict.sufferers],
        since=found.since,
        actions=[
            ActionView(
                rung=one.rung,
                words=one.words,
                cost=one.cost,
                why_not=one.why_not,
                limits=msgspec.to_builtins(one.limits) if one.limits is not None else None,
                server=one.server,
            )
            for one in found.actions
        ],
    )
