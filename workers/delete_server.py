"""Delete a server that a provider made: empty, out of the fleet, gone."""

from control_plane.adapters.inventory import read_inventory
from control_plane.catalog import audit, provided_servers, servers
from control_plane.catalog.audit import Entry
from control_plane.catalog.pool import Connection
from control_plane.catalog.provided_servers import ProvidedServer
from control_plane.catalog.servers import Server
from control_plane.domain.errors import (
    NotFound,
    OperationInProgress,
    ServerUnavailable,
    ServerUnsuitable,
    TenantMismatch,
)
from control_plane.domain.names import TEMPLATE_PREFIX, show
from control_plane.domain.plans import PLANS
from control_plane.services.providing import provider_of
from control_plane.services.servers import Removal, withdraw_server
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps import chaining
from workers.steps.providing import provided

_EMPTYING_SECONDS = 1.0
_LOOK_SECONDS = 5.0
_NAMED = 3


async def empty_server(ctx: StepContext) -> Outcome:
    """The server holds no database, and is out of the fleet: from here on it is only deleted."""
    made = await provided(ctx)
    async with ctx.catalog_write() as db:
        server = await _enrolled(db, made)
        if server is None:
            await provided_servers.mark_deleting(db, made.id)
            return Skip("it is not in the fleet")
    if chaining.first_look(ctx):
        return Wait(_EMPTYING_SECONDS, "waiting for requests that began before it was drained")
    try:
        removal = await _withdraw(ctx, server)
    except OperationInProgress as error:
        return Wait(_EMPTYING_SECONDS, error.message)
    for reclaim in removal.reclaims:
        await ctx.ports.doorbell.ring(reclaim.id, reclaim.queue)
    if removal.removed:
        return Done()
    return Wait(_EMPTYING_SECONDS, f"waiting for {removal.waits_for}")


async def delete_instance(ctx: StepContext) -> Outcome:
    """The provider is deleting the server, or has deleted it."""
    made = await provided(ctx)
    if made.state == "deleted":
        return Skip("it is gone")
    await provider_of(ctx.ports, made).delete(made.id)
    return Done(made.provider)


async def wait_deleted(ctx: StepContext) -> Outcome:
    """The provider has no such server any more."""
    made = await provided(ctx)
    found = await provider_of(ctx.ports, made).look(made.id)
    if found is None:
        return Done()
    return Wait(_LOOK_SECONDS, f"{found.name}: {found.detail}")


async def forget_server(ctx: StepContext) -> Outcome:
    """The name is free, and the password is nowhere."""
    made = await provided(ctx)
    async with ctx.catalog_write() as db:
        await provided_servers.mark_deleted(db, made.id)
    return Done()


async def _enrolled(db: Connection, made: ProvidedServer) -> Server | None:
    try:
        server = await servers.get(db, made.id)
    except NotFound:
        return None
    return server if server.state != "removed" else None


async def _withdraw(ctx: StepContext, server: Server) -> Removal:
    async with ctx.catalog_write() as db:
        removal = await withdraw_server(db, server, ctx.operation.actor)
        if removal.removed:
            await _require_empty(ctx, server)
            await provided_servers.mark_deleting(db, server.id)
            await audit.record_system(db, Entry("server.remove", server.name))
    return removal


async def _require_empty(ctx: StepContext, server: Server) -> None:
    """No database of a tenant is on the server; one may be that the catalog has forgotten.

    Nobody is asked when the request says that the server is lost.

    Raises:
        TenantMismatch: there is one.
        ServerUnsuitable: it does not answer.
    """
    if ctx.operation.input.get("lost"):
        return
    again = f"tenantry operations retry {show('op', ctx.operation.id)}"
    try:
        async with ctx.admin(server) as admin:
            found = (await read_inventory(admin)).databases
    except ServerUnavailable as error:
        raise ServerUnsuitable(
            f"{server.name} cannot be asked what it still has ({error.message}); when it answers: "
            f"{again}; if it never will again: tenantry servers delete {server.name} --lost"
        ) from error
    left = sorted(
        name for name, valid in found.items() if valid and not name.startswith(TEMPLATE_PREFIX)
    )
    if left:
        more = f" and {len(left) - _NAMED} more" * (len(left) > _NAMED)
        raise TenantMismatch(
            f"{server.name} still has {', '.join(left[:_NAMED])}{more}, which the catalog does not "
            "know; nothing was deleted: find out whose they are, dump them, drop them by hand, "
            f"then: {again}"
        )


VERB = Verb(
    plan=PLANS["delete_server"],
    steps=(empty_server, delete_instance, wait_deleted, forget_server),
)
