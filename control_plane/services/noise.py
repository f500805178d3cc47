"""Who disturbs whom: ranked, judged, watched; and what may be done about it, a rung at a time."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Literal
from uuid import UUID

import msgspec
import structlog

from control_plane.adapters import clock
from control_plane.catalog import audit, databases, disturbances, servers, tenants, usage
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.disturbances import Disturbance
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server
from control_plane.domain.errors import NoCapacity, TenantryError, WrongState
from control_plane.domain.moves import PAUSE_BUDGET_MS
from control_plane.domain.noise import (
    KINDS,
    Load,
    Verdict,
    judge,
    quiet_hour,
    rate,
    suspects,
    tighter,
)
from control_plane.domain.placement import Wish, place
from control_plane.domain.tenants import Tenant, TierLimits
from control_plane.domain.usage import Usage, share
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

_log = structlog.get_logger(__name__)
# The minutes that are looked at: the present one and the one before it, one to two together.
_WINDOW = dt.timedelta(minutes=1)
_PAST = dt.timedelta(days=7)
_RANKED = 10
# In intervals: how far apart two looks are two, and how many must see nothing for it to be over.
_APART = 0.5
_LOOKS_TO_END = 6
_MB = 1_000_000
_MAJOR = 10_000

Rung = Literal["watch", "tighten", "move"]


class Ranked(msgspec.Struct, frozen=True):
    """One tenant in the order of what it uses; rates and shares by resource."""

    tenant_id: UUID
    slug: str
    rates: dict[str, float]
    shares: dict[str, float]
    connections: int
    pool_wait_ms: float
    pool_waiting: int


class Action(msgspec.Struct, frozen=True):
    """A rung of the ladder. ``why_not`` says what stands against it; ``cost`` what it takes."""

    rung: Rung
    words: str
    cost: str
    why_not: str | None = None
    limits: TierLimits | None = None
    server: str | None = None


class Named(msgspec.Struct, frozen=True):
    """A tenant that disturbs, since when, and what may be done, the gentlest first."""

    verdict: Verdict
    since: dt.datetime | None
    actions: list[Action]


class ServerNoise(msgspec.Struct, frozen=True):
    """One server in the last ``seconds``: who uses most of it, and who too much.

    ``problem`` tells why it was not looked at lately.
    """

    server: str
    seconds: float
    busy: float
    ranked: list[Ranked]
    named: list[Named]
    problem: str | None = None


class MoveProposal(msgspec.Struct, frozen=True):
    """Where a tenant could go, why there, and what that costs in words; nothing has begun."""

    tenant: str
    server: str
    reason: str
    cost: str
    hot: bool


class _Seen(msgspec.Struct, frozen=True):
    seconds: float
    of_server: Usage
    loads: list[Load]
    verdicts: list[Verdict]


async def noisy(db: Connection, *, server: str | None = None) -> list[ServerNoise]:
    """Every server, or one: who uses what, who disturbs whom, and what may be done.

    Raises:
        NotFound: there is no such server.
    """
    asked = [await servers.find(db, server)] if server else await servers.every(db)
    return [await _noise_of(db, one) for one in asked]


async def open_disturbances(db: Connection) -> list[Disturbance]:
    """Whatever disturbs now, as the watch last saw it: cheap, for an overview."""
    return await disturbances.open_ones(db)


async def ladder(db: Connection, tenant: Tenant) -> list[Action]:
    """What may be done about a tenant that disturbs, the gentlest first."""
    wanted = tighter(tenant.limits)
    watch = Action("watch", "it is in the audit log and in /metrics; look again", "nothing")
    tighten = Action(
        "tighten",
        f"tenantry tenants limit {tenant.slug} --pool {wanted.pool_size} "
        f"--session-pool {wanted.session_pool_size} --connections {wanted.login.connections}",
        f"its own statements wait for {wanted.pool_size} connections of each pooler instead of "
        f"{tenant.limits.pool_size}; tenants limit {tenant.slug} --reset takes it back",
        why_not=_busy(tenant)
        or ("its limits are as tight as they go" if wanted == tenant.limits else None),
        limits=wanted,
    )
    return [watch, tighten, await _move_action(db, tenant)]


async def propose_move(db: Connection, caller: Caller, slug_or_id: str) -> MoveProposal:
    """Where the tenant could be moved to, with the price; ``services.moves`` begins it.

    Raises:
        NotFound: there is no such tenant.
        WrongState: it is not active.
        NoCapacity: no other server fits; the message says why for each.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    if tenant.state != "active":
        raise WrongState(f"{tenant.slug} is {tenant.state}; only an active tenant can be moved")
    return await _proposal(db, tenant, hot=await disturbances.open_one(db, tenant.id) is not None)


async def watch_noise(ports: Ports) -> None:
    """Look at every server that answers; note who disturbs, and tell of it once."""
    async with ports.catalog.connection() as db:
        living = [server for server in await servers.every(db) if server.reachable]
    for server in living:
        async with ports.catalog.transaction() as db:
            await _watch(db, server, ports.settings.usage_seconds)


async def _watch(db: Connection, server: Server, every: float) -> None:
    seen = await _see(db, server)
    for verdict in seen.verdicts:
        told = await disturbances.see(db, clock.new_id(), server.id, verdict, apart=every * _APART)
        if told is not None:
            _log.warning("noisy_neighbour", tenant=told.slug, server=server.name, level=told.level)
            await _tell(db, "tenant.noisy", told)
    for over in await disturbances.end_unseen(db, server.id, every * _LOOKS_TO_END):
        await _tell(db, "tenant.quiet", over)


async def _tell(db: Connection, action: str, told: Disturbance) -> None:
    facts: dict[str, object] = {"server": told.server, "level": told.level}
    if action == "tenant.noisy":
        facts |= {"verdict": told.verdict, "sufferers": [one.slug for one in told.sufferers]}
    await audit.record_system(db, Entry(action, told.slug, tenant_id=told.tenant_id, facts=facts))


async def _see(db: Connection, server: Server) -> _Seen:
    since = _minute(await usage.now(db)) - _WINDOW
    found = {one.subject_id: one for one in await usage.on_server(db, server.id, since)}
    whole = found.get(server.id)
    seconds, of_server = (whole.seconds, whole.usage) if whole else (0.0, Usage())
    loads = [
        Load(tenant_id, slug, found[tenant_id].usage if tenant_id in found else Usage(), (), ours)
        for tenant_id, slug, ours in await disturbances.neighbours(db, server.id)
    ]
    if suspects(loads, of_server, seconds):
        loads = await _with_past(db, server.id, loads, since - _PAST)
    return _Seen(seconds, of_server, loads, judge(server.name, loads, of_server, seconds))


async def _with_past(
    db: Connection, server_id: UUID, loads: Sequence[Load], since: dt.datetime
) -> list[Load]:
    """Only of those that did anything: an idle neighbour neither disturbs nor suffers."""
    awake = [load.tenant_id for load in loads if load.usage != Usage()]
    past = await usage.past(db, awake, server_id, since)
    return [
        msgspec.structs.replace(load, past=tuple(past.get(load.tenant_id, ()))) for load in loads
    ]


async def _noise_of(db: Connection, server: Server) -> ServerNoise:
    seen = await _see(db, server)
    ranked = sorted(
        (load for load in seen.loads if load.usage != Usage()),
        key=lambda load: load.usage.busy_ms,
        reverse=True,
    )
    problem = server.problem if not server.reachable else None
    if problem is None and not seen.seconds:
        problem = "no sample of the last two minutes; see the logs of the workers"
    return ServerNoise(
        server=server.name,
        seconds=seen.seconds,
        busy=rate(seen.of_server, "time", seen.seconds),
        ranked=[_ranked(load, seen) for load in ranked[:_RANKED]],
        named=[await _named(db, verdict) for verdict in seen.verdicts],
        problem=problem,
    )


def _ranked(load: Load, seen: _Seen) -> Ranked:
    used = load.usage
    return Ranked(
        tenant_id=load.tenant_id,
        slug=load.slug,
        rates={name: rate(used, name, seen.seconds) for name in KINDS},
        shares={
            name: share(getattr(used, kind.field), getattr(seen.of_server, kind.field))
            for name, kind in KINDS.items()
        },
        connections=used.connections,
        pool_wait_ms=used.pool_wait_ms / max(1, used.pooled_transactions),
        pool_waiting=used.pool_waiting,
    )


async def _named(db: Connection, verdict: Verdict) -> Named:
    tenant = await tenants.get(db, verdict.tenant_id)
    known = await disturbances.open_one(db, tenant.id)
    return Named(verdict, known.began_at if known else None, await ladder(db, tenant))


async def _move_action(db: Connection, tenant: Tenant) -> Action:
    try:
        proposal = await _proposal(db, tenant, hot=True)
    except TenantryError as error:
        words = f"move {tenant.slug} to another server"
        return Action("move", words, "an enrolled server that fits", why_not=error.message)
    return Action(
        "move",
        f"tenantry move {tenant.slug} --to {proposal.server}: {proposal.reason}",
        proposal.cost,
        why_not=_busy(tenant),
        server=proposal.server,
    )


def _busy(tenant: Tenant) -> str | None:
    return f"{tenant.operation_kind} is under way" if tenant.operation_kind else None


async def _proposal(db: Connection, tenant: Tenant, *, hot: bool) -> MoveProposal:
    live = await databases.primary(db, tenant.id)
    home = await servers.get(db, live.server_id)
    elsewhere = [
        one
        for one in await servers.capacities(db, live.template, live.template_fingerprint)
        if one.id != home.id
    ]
    if not elsewhere:
        raise NoCapacity(f"{home.name} is the only server; enrol another: tenantry servers add")
    wish = Wish(tenant.tier, tenant.region, least_major=home.version_num // _MAJOR)
    placement = place(wish, elsewhere)
    now = _minute(await usage.now(db))
    busy = await _busy_sessions(db, placement.server_id, now - _WINDOW)
    size = await usage.size_of(db, tenant.id)
    cost = _price(tenant, home.name, size[0] if size else None)
    if hot:
        cost += await _heat(db, tenant, home, now)
    reason = f"{placement.reason}; {busy:.1f} sessions are busy there"
    return MoveProposal(tenant.slug, placement.server, reason, cost, hot)


async def _busy_sessions(db: Connection, server_id: UUID, since: dt.datetime) -> float:
    found = {one.subject_id: one for one in await usage.on_server(db, server_id, since)}
    whole = found.get(server_id)
    return rate(whole.usage, "time", whole.seconds) if whole else 0.0


def _minute(now: dt.datetime) -> dt.datetime:
    return now.replace(second=0, microsecond=0)


def _price(tenant: Tenant, home: str, size: int | None) -> str:
    amount = f"{size / _MB:,.0f} MB" if size is not None else "its whole database"
    return (
        f"{amount} are read on {home} and written to the other server while {tenant.slug} works; "
        f"its clients wait up to {PAUSE_BUDGET_MS / 1000:g} s at the switch"
    )


async def _heat(db: Connection, tenant: Tenant, home: Server, now: dt.datetime) -> str:
    """It is busy at this moment: what that adds, and when it would be cheaper."""
    words = (
        f"; it is hot right now, so the copy adds to what {home.name} suffers from, and what is "
        "written meanwhile has to be caught up with: tighten it first, or wait"
    )
    buckets = await usage.series(db, [tenant.id], since=now - _PAST, grain=15, server_id=home.id)
    hours: dict[int, list[float]] = {}
    for one in buckets:
        hours.setdefault(one.at.hour, []).append(one.usage.busy_ms)
    quiet = quiet_hour(_means(hours))
    return words if quiet is None else f"{words} until {quiet:02}:00 UTC, its quietest hour"


def _means(hours: Mapping[int, Sequence[float]]) -> dict[int, float]:
    return {hour: sum(values) / len(values) for hour, values in hours.items()}
