"""Create a server: a provider makes it, then it is enrolled like any other."""

from control_plane.adapters.providers.provider import Instance, Place, Wanted
from control_plane.catalog import audit, operations, provided_servers, servers
from control_plane.catalog.audit import Entry
from control_plane.catalog.pool import Connection
from control_plane.catalog.provided_servers import ProvidedServer
from control_plane.domain.errors import ProviderRefused, WrongState
from control_plane.domain.plans import PLANS
from control_plane.services import providing
from control_plane.services.enrolment import NewServer, probe_server
from control_plane.services.servers import begin_enrolment, facts_of
from control_plane.services.servers import record_server as record
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps import chaining
from workers.steps.providing import provided

_LOOK_SECONDS = 5.0


async def create_instance(ctx: StepContext) -> Outcome:
    """The provider is making the server, or has made it."""
    made = await _wanted(ctx)
    if made.state == "ready":
        return Skip("it is made")
    await providing.provider_of(ctx.ports, made).create(
        Wanted(made.id, made.name, providing.password_of(ctx.ports, made), made.wish)
    )
    return Done(made.provider)


async def wait_instance(ctx: StepContext) -> Outcome:
    """The provider says that the server is there, and where."""
    made = await _wanted(ctx)
    found = await _look(ctx, made)
    if found.place is None or found.state != "available":
        return Wait(_LOOK_SECONDS, f"{found.name}: {found.detail}")
    return Done(f"{found.place.host}:{found.place.port}")


async def record_server(ctx: StepContext) -> Outcome:
    """The server is in the catalog, and is being enrolled."""
    made = await _wanted(ctx)
    if made.state == "ready":
        return Skip("it is recorded")
    found = await _look(ctx, made)
    if found.place is None:
        return Wait(_LOOK_SECONDS, f"{found.name}: {found.detail}")
    wanted = _new_server(ctx, made, found.place)
    probed = await probe_server(ctx.ports, wanted)
    async with ctx.catalog_write() as db:
        enrolment = await record(
            db, ctx.ports, wanted, probed, actor=ctx.operation.actor, key=made.id
        )
        if made.wish.reserved:
            await servers.change_state(db, made.id, expected=("enrolling",), wanted="draining")
        await provided_servers.mark_ready(db, made.id)
        facts = {**facts_of(wanted, probed), "provider": made.provider}
        await audit.record_system(db, Entry("server.add", made.name, facts=facts))
    await ctx.ports.doorbell.ring(enrolment.id, enrolment.queue)
    return Done(f"{found.place.host}:{found.place.port}")


async def wait_enrolled(ctx: StepContext) -> Outcome:
    """The server takes tenants."""
    made = await _wanted(ctx)
    async with ctx.catalog_read() as db:
        enrolment = await operations.newest_of_server(db, made.id, "enrol")
        server = await servers.get(db, made.id)
    if server.state == "removed":
        raise WrongState(f"server {made.name} was removed meanwhile")
    if enrolment is None or (enrolment.state == "cancelled" and chaining.first_look(ctx)):
        async with ctx.catalog_write() as db:
            enrolment = await begin_enrolment(db, server, ctx.operation.actor)
        await ctx.ports.doorbell.ring(enrolment.id, enrolment.queue)
    return await chaining.wait_for(ctx, enrolment.id)


async def abandon(ctx: StepContext, db: Connection) -> None:
    """A cancelled creation leaves no server; a failed one can be retried or deleted."""
    operation = await operations.get(db, ctx.operation.id)
    if operation.state == "cancelled":
        made = await provided_servers.get(db, providing.key_of(operation))
        await providing.begin_deletion(db, made.id, made.name, operation.actor)


async def _wanted(ctx: StepContext) -> ProvidedServer:
    made = await provided(ctx)
    if made.state not in ("creating", "ready"):
        raise WrongState(f"server {made.name} was deleted meanwhile; create it again")
    return made


async def _look(ctx: StepContext, made: ProvidedServer) -> Instance:
    """The instance, which may still be on its way.

    Raises:
        ProviderRefused: it is not, or will never be.
    """
    found = await providing.provider_of(ctx.ports, made).look(made.id)
    remedy = f"delete it and create another: tenantry servers delete {made.name}"
    if found is None:
        raise ProviderRefused(f"{made.provider} has no such server any more; {remedy}")
    if found.state in ("failed", "deleting"):
        raise ProviderRefused(f"{found.name} at {made.provider}: {found.detail}; {remedy}")
    return found


def _new_server(ctx: StepContext, made: ProvidedServer, place: Place) -> NewServer:
    wish = made.wish
    # What a move asks before it fills a disk.
    room = {"storage_gb": str(wish.storage_gb)} if wish.storage_gb else {}
    return NewServer(
        name=made.name,
        host=place.host,
        port=place.port,
        user=place.user,
        password=providing.password_of(ctx.ports, made),
        region=wish.region,
        tier=wish.tier,
        capacity=wish.capacity,
        labels={**room, **wish.labels},
        ca_pem=place.ca_pem,
    )


VERB = Verb(
    plan=PLANS["create_server"],
    steps=(create_instance, wait_instance, record_server, wait_enrolled),
    abandon=abandon,
)
