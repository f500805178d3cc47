"""Making one tenant database and its roles: shared by provisioning and by the pool."""

from control_plane.adapters import tenant_database, tenant_roles, tenant_schema
from control_plane.adapters.tenant_database import Identity, IdentityState
from control_plane.catalog import databases, servers
from control_plane.catalog.databases import Database
from control_plane.catalog.servers import Server
from control_plane.domain.errors import SchemaMismatch, TenantMismatch
from control_plane.domain.names import template_name
from control_plane.domain.tenants import LoginLimits
from workers.engine.step import Done, Outcome, StepContext


async def make_roles(ctx: StepContext, database: Database, limits: LoginLimits) -> Outcome:
    """The database's eight roles exist; its logins are closed or as they were."""
    async with ctx.admin(await ctx.server(database.server_id)) as connection:
        await tenant_roles.ensure_role_set(connection, database.roles, limits)
    return Done(f"roles {database.roles.prefix}_*")


async def open_logins(ctx: StepContext, database: Database, limits: LoginLimits) -> None:
    """Every credential that is not revoked can log in, within the tier's limits."""
    async with ctx.catalog_read() as db:
        held = await databases.credentials(db, database.role_set_id)
    async with ctx.admin(await ctx.server(database.server_id)) as connection:
        for credential in held.values():
            if credential.state != "revoked":
                await tenant_roles.open_login(
                    connection, credential.login, credential.verifier, limits
                )


async def make_database(ctx: StepContext, database: Database) -> Outcome:
    """The database is there, cloned from the closed template, and nobody foreign may connect."""
    server = await ctx.server(database.server_id)
    async with ctx.admin(server) as connection:
        await tenant_database.create_tenant_database(
            connection,
            database.name,
            template_name(database.template_fingerprint),
            database.roles,
            server.system_identifier,
        )
    return Done(f"database {database.name} on {server.name}")


async def adopt_template(ctx: StepContext, database: Database, state: IdentityState) -> Outcome:
    """What the template holds belongs to this tenant's roles, and the identity says whose it is."""
    server = await ctx.server(database.server_id)
    connection = await ctx.inside(server, database.name)
    await tenant_schema.adopt_template(connection, database.roles)
    await _mark(ctx, database, state)
    return Done(f"template {database.template_fingerprint}")


async def is_somebodys(ctx: StepContext, database: Database) -> bool:
    """Whether the database itself says that a tenant has it, or had."""
    connection = await ctx.inside(await ctx.server(database.server_id), database.name)
    identity = await tenant_database.read_identity(connection)
    return identity is not None and identity.state != "pooled"


async def serves(ctx: StepContext, server: Server, name: str) -> bool:
    """Whether there is such a database, and it says itself that it is what a tenant works with."""
    async with ctx.admin(server) as admin:
        if not await tenant_database.is_ours(admin, name):
            return False
    identity = await tenant_database.read_identity(await ctx.inside(server, name))
    return identity is not None and identity.state == "primary"


async def require_unserved(ctx: StepContext, server: Server, name: str) -> None:
    """A database that is to be thrown away is not what a tenant works with.

    Raises:
        TenantMismatch: it says that it is.
    """
    if await serves(ctx, server, name):
        raise TenantMismatch(
            f"{name} on {server.name} says that it serves its tenant; the catalog has lost its "
            "last commits; it stays where it is: dump it before anything else, then tenantry check"
        )


async def require_unclaimed(ctx: StepContext, database: Database) -> None:
    """A database of the pool is handed out once, whatever the catalog remembers.

    Raises:
        TenantMismatch: it is a tenant's already.
    """
    if await is_somebodys(ctx, database):
        raise TenantMismatch(
            f"{database.name}, claimed from the pool, says that it is a tenant's; the catalog has "
            "lost its last commits; it stays where it is: tenantry check; ask for the tenant again"
        )


async def mark_primary(ctx: StepContext, database: Database) -> Outcome:
    """A database of the pool says that it is this tenant's."""
    await _mark(ctx, database, "primary")
    return Done("claimed from the pool")


async def verify_database(ctx: StepContext, database: Database, state: IdentityState) -> Outcome:
    """Identity, revision, privileges and indexes are exactly what they must be."""
    server = await ctx.server(database.server_id)
    async with ctx.catalog_read() as db:
        revision = await servers.template_revision(
            db, database.server_id, database.template_fingerprint
        )
    if revision is None:
        raise SchemaMismatch(f"server {server.name} has no template for {database.name}")
    await tenant_schema.verify_tenant_database(
        await ctx.inside(server, database.name),
        database.roles,
        _identity(database, server, state),
        revision,
    )
    async with ctx.catalog_write() as db:
        await databases.record_schema(db, database.id, revision)
    return Done(f"revision {revision}")


async def _mark(ctx: StepContext, database: Database, state: IdentityState) -> None:
    server = await ctx.server(database.server_id)
    wanted = _identity(database, server, state)
    await tenant_database.write_identity(
        await ctx.inside(server, database.name), wanted.tenant_id, wanted.generation, state
    )


def _identity(database: Database, server: Server, state: IdentityState) -> Identity:
    return Identity(
        tenant_id=database.tenant_id,
        generation=database.generation,
        state=state,
        system_identifier=server.system_identifier,
    )
