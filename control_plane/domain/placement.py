"""Choosing a server: a pure function over a capacity snapshot, with its reason in words."""

from uuid import UUID

import msgspec

from control_plane.domain.errors import NoCapacity
from control_plane.domain.tenants import Tier


class ServerCapacity(msgspec.Struct, frozen=True):
    """What placement may know of one server. ``tier`` ``None`` takes every shared tier.

    ``content`` is the fingerprint of the template that a new database there is made from.
    """

    id: UUID
    name: str
    state: str
    reachable: bool
    region: str | None
    tier: Tier | None
    capacity: int
    placed: int
    content: str | None
    major: int = 0


class Wish(msgspec.Struct, frozen=True):
    """What the request asks of a server; ``None`` means any.

    ``least_major``: the Postgres that the data to be placed there comes from.
    """

    tier: Tier
    region: str | None = None
    server: str | None = None
    least_major: int = 0


class Placement(msgspec.Struct, frozen=True):
    """The chosen server and why."""

    server_id: UUID
    server: str
    reason: str
    content: str


def refusal(server: ServerCapacity, wish: Wish) -> str | None:
    """Why this server cannot take the tenant, or ``None`` when it can."""
    checks = (
        (server.state != "active", f"is {server.state}"),
        (server.content is None, "has no template yet"),
        (not server.reachable, "does not answer"),
        (server.major < wish.least_major, f"has Postgres {server.major}, not {wish.least_major}"),
        (wish.region not in (None, server.region), f"is in region {server.region or 'none'}"),
        (not _tier_fits(server, wish.tier), f"takes tier {server.tier or 'shared'}"),
        (
            wish.tier == "dedicated" and server.placed > 0,
            f"already holds {server.placed} tenants",
        ),
        (server.placed >= server.capacity, f"is full ({server.placed} of {server.capacity})"),
    )
    return next((words for refused, words in checks if refused), None)


def place(wish: Wish, servers: list[ServerCapacity]) -> Placement:
    """The least loaded server that fits; ties go to the first name.

    Raises:
        NoCapacity: none fits; the message says why for each server looked at.
    """
    looked_at = [server for server in servers if wish.server in (None, server.name)]
    refusals = {server.name: refusal(server, wish) for server in looked_at}
    fitting = [server for server in looked_at if refusals[server.name] is None]
    if not fitting:
        raise NoCapacity(_explain(wish, refusals))
    best = min(fitting, key=lambda server: (server.placed / server.capacity, server.name))
    reason = _reason(best, wish, len(fitting), refusals)
    return Placement(best.id, best.name, reason, best.content or "")


def _tier_fits(server: ServerCapacity, tier: Tier) -> bool:
    return server.tier == tier or (server.tier is None and tier != "dedicated")


def _reason(best: ServerCapacity, wish: Wish, fitting: int, refusals: dict[str, str | None]) -> str:
    load = f"{best.placed} of {best.capacity} places taken"
    if wish.server is not None:
        return f"{best.name} was asked for ({load})"
    others = [f"{name} {words}" for name, words in sorted(refusals.items()) if words]
    chosen = f"{best.name}: least loaded of {fitting} that fit ({load})"
    return f"{chosen}; {'; '.join(others)}" if others else chosen


def _explain(wish: Wish, refusals: dict[str, str | None]) -> str:
    if not refusals:
        return "no server is enrolled; add one with: tenantry servers add NAME --host --port --user"
    asked = f"tier {wish.tier}" + (f", region {wish.region}" if wish.region else "")
    listed = "; ".join(f"{name} {words}" for name, words in sorted(refusals.items()))
    return f"no server fits {asked}: {listed}"
