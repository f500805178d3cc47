"""Enrol: from a recorded server to one that takes tenants.

Run again on a server in use, it brings the present template version there.
"""

from collections.abc import Sequence

from control_plane.adapters import tenant_roles
from control_plane.adapters.postgres_server import require_server
from control_plane.adapters.template_database import BuiltSchema, drop_strays
from control_plane.adapters.template_database import build_template as build
from control_plane.catalog import operations, schemas, servers
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server
from control_plane.domain.errors import WrongState
from control_plane.domain.names import template_name
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb

_PER_MAJOR = 10_000  # server_version_num counts them so


async def bootstrap_server(ctx: StepContext) -> Outcome:
    """The roles that own databases exist, and strangers may not connect to anything."""
    server = await _living_server(ctx)
    async with ctx.admin(server) as connection:
        await require_server(connection, server.system_identifier)
        await tenant_roles.bootstrap_server(connection)
    return Done()


async def build_template(ctx: StepContext) -> Outcome:
    """The closed database of every template, or of the one that was asked for, is there."""
    server = await _living_server(ctx)
    asked = ctx.operation.input.get("template")
    names = [asked] if asked is not None else ctx.ports.templates.names
    done = [await _build(ctx, server, name) for name in names]
    async with ctx.catalog_read() as db:
        known = await servers.template_contents(db, server.id)
    # No other template is being built here: one enrolment of a server is alive at a time.
    strays = await drop_strays(
        ctx.address(server), [template_name(content) for content in known], server.system_identifier
    )
    if strays:
        done.append(f"{strays} left over dropped")
    return Done("; ".join(done))


async def _build(ctx: StepContext, server: Server, template_named: str) -> str:
    template = ctx.ports.templates.current(template_named)
    name = template_name(template.fingerprint)

    async def record(schemas_built: Sequence[BuiltSchema]) -> None:
        async with ctx.catalog_write() as db:
            for built in schemas_built:
                await schemas.record_golden(
                    db,
                    template.name,
                    template.fingerprint,
                    built.revision,
                    server.version_num // _PER_MAJOR,
                    schemas.Golden(built.reading, built.mark),
                )

    built = await build(ctx.address(server), name, template, server.system_identifier, record)
    async with ctx.catalog_write() as db:
        await servers.record_template(
            db,
            server.id,
            template=template.name,
            fingerprint=template.fingerprint,
            revision=template.revision,
        )
    return f"{name} at {template.revision}" if built else f"{name} was there"


async def activate_server(ctx: StepContext) -> Outcome:
    """Placement may choose the server, unless somebody drained it meanwhile."""
    server = await _living_server(ctx)
    async with ctx.catalog_write() as db:
        active = await servers.change_state(db, server.id, expected=("enrolling",), wanted="active")
    return Done() if active else Skip("it is being drained")


async def abandon(ctx: StepContext, db: Connection) -> None:
    """A cancelled enrolment leaves no server; a failed one can be retried or removed."""
    operation = await operations.get(db, ctx.operation.id)
    server = await servers.get(db, ctx.server_id)
    if operation.state == "cancelled" and server.state == "enrolling":
        await servers.remove(db, server)


async def _living_server(ctx: StepContext) -> Server:
    server = await ctx.server(ctx.server_id)
    if server.state == "removed":
        raise WrongState(f"server {server.name} was removed meanwhile; add it again if it is meant")
    return server


VERB = Verb(
    plan=PLANS["enrol"],
    steps=(bootstrap_server, build_template, activate_server),
    abandon=abandon,
)
