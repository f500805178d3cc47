"""Migrate: one tenant's database brought to a revision, by the tenant's own migrator."""

from control_plane.adapters import (
    clock,
    migrator_lease,
    tenant_database,
    tenant_migration,
    tenant_roles,
)
from control_plane.adapters.alembic_process import Job, upgrade_many
from control_plane.adapters.postgres_server import Connection
from control_plane.adapters.revisions import Revision
from control_plane.adapters.schema_fingerprint import read_fingerprint, role_names
from control_plane.adapters.tenant_migration import Sessions
from control_plane.catalog import databases, restore_points, tenants
from control_plane.catalog.databases import Database
from control_plane.catalog.restore_points import RestorePoint
from control_plane.catalog.servers import Server
from control_plane.config import Secret
from control_plane.domain.errors import LockTimeout, RevisionFailed
from control_plane.domain.plans import PLANS
from workers.engine.step import Done, Outcome, Skip, StepContext, Verb, Wait
from workers.steps import migrating
from workers.steps.migrating import Script

_TRIES_FOR_A_LOCK = 12
_TEMPLATE_SECONDS = 2.0
_MS = 1000


async def record_restore_point(ctx: StepContext) -> Outcome:
    """A point in the server's WAL to which the tenant could be taken back is on record."""
    async with ctx.catalog_read() as db:
        database = await databases.primary(db, ctx.tenant_id)
        known = await restore_points.of_operation(db, ctx.operation.id)
    if known is not None:
        return Done(f"{known.name} at {known.lsn}")
    name = migrating.restore_point_name(ctx.operation.id)
    async with ctx.admin(await ctx.server(database.server_id)) as connection:
        lsn = await tenant_migration.mark_restore_point(connection, name)
    async with ctx.catalog_write() as db:
        await restore_points.insert(
            db,
            RestorePoint(
                id=clock.new_id(),
                tenant_id=ctx.tenant_id,
                server_id=database.server_id,
                operation_id=ctx.operation.id,
                name=name,
                lsn=lsn,
                revision=database.schema_revision,
                created_at=clock.now(),
            ),
        )
    return Done(f"{name} at {lsn}")


async def apply_revision(ctx: StepContext) -> Outcome:
    """The database is at the revision; each step of the way was a transaction of its own."""
    script, database, server = await _what(ctx)
    async with ctx.admin(server) as admin:
        await _converge_roles(ctx, admin, database)
        password = await migrator_lease.open_migrators(admin, [database.roles])
        try:
            return await _apply(ctx, script, database, server, password)
        except LockTimeout as error:
            if ctx.operation.steps[1].attempts >= _TRIES_FOR_A_LOCK:
                message = f"{error.message}; gave up after {_TRIES_FOR_A_LOCK} tries"
                raise RevisionFailed(message) from error
            raise
        finally:
            if not admin.is_closed():
                await migrator_lease.close_migrators(admin, [database.roles])


async def verify_schema(ctx: StepContext) -> Outcome:
    """The schema is the one that the template makes at this revision; the migrator is shut out."""
    script, database, server = await _what(ctx)
    async with ctx.catalog_read() as db:
        wanted = await migrating.golden(db, script, server)
    if wanted is None:
        return Wait(_TEMPLATE_SECONDS, f"waiting for template {script.template} on {server.name}")
    async with ctx.admin(server) as admin:
        await migrator_lease.close_migrators(admin, [database.roles])
    inside = await ctx.inside(server, database.name)
    found = await read_fingerprint(inside, role_names(database.roles))
    migrating.require_equal(found, wanted, ctx.operation.subject)
    return Done(f"revision {script.target}")


async def record_revision(ctx: StepContext) -> Outcome:
    """The catalog knows the revision."""
    script, database, server = await _what(ctx)
    async with ctx.catalog_write() as db:
        wanted = await migrating.golden(db, script, server)
        if wanted is None:
            return Skip("the golden schema is gone")
        await databases.record_migrated(db, database.id, script.target, wanted.fingerprint)
    return Done(f"revision {script.target}")


async def _what(ctx: StepContext) -> tuple[Script, Database, Server]:
    async with ctx.catalog_read() as db:
        script = await migrating.script_for(db, ctx.ports, ctx.operation)
        database = await databases.primary(db, ctx.tenant_id)
    return script, database, await ctx.server(database.server_id)


async def _converge_roles(ctx: StepContext, admin: Connection, database: Database) -> None:
    """A tenant that is older than one of today's roles gets it."""
    if await migrator_lease.lacking_roles(admin, [database.roles]):
        async with ctx.catalog_read() as db:
            tenant = await tenants.get(db, ctx.tenant_id)
        await tenant_roles.ensure_role_set(admin, database.roles, tenant.limits.login)
        await tenant_database.open_to_roles(admin, database.name, database.roles)


async def _apply(
    ctx: StepContext, script: Script, database: Database, server: Server, password: Secret
) -> Outcome:
    owner = await migrator_lease.connect_as_owner(
        ctx.address(server),
        database.name,
        database.roles,
        password,
        ctx.session_name,
        tenant_migration.session_settings(script.patience),
    )
    try:
        current = await tenant_migration.read_revision(owner)
        sessions = Sessions(owner, lambda: ctx.inside(server, database.name), database.roles)
        ahead = tenant_migration.remaining(script.path, current)
        for revision in ahead:
            if revision.runs_python:
                await _run_python(ctx, script, database, server, password, revision)
            else:
                await _run_compiled(ctx, script, database, server, sessions, revision)
            async with ctx.catalog_write() as db:
                await databases.record_schema(db, database.id, revision.id)
    finally:
        owner.terminate()
    done = ", ".join(revision.id for revision in ahead)
    return Done(f"applied {done}") if done else Skip(f"at {current} already")


async def _run_compiled(
    ctx: StepContext,
    script: Script,
    database: Database,
    server: Server,
    sessions: Sessions,
    revision: Revision,
) -> None:
    async with ctx.catalog_write() as db:
        marks = await migrating.marks(db, script, server)
        if not revision.transactional:
            await databases.begin_outside(db, database.id, revision.id)
    mark = marks.get(revision.id)
    await tenant_migration.apply(sessions, revision, script.patience, mark)


async def _run_python(
    ctx: StepContext,
    script: Script,
    database: Database,
    server: Server,
    password: Secret,
    revision: Revision,
) -> None:
    """Let Alembic run a revision that asks the database, in a process of its own."""
    roles, patience = database.roles, script.patience
    job = Job(
        address=ctx.address(server).for_login(roles.migrator, password),
        database=database.name,
        roles={
            "owner": roles.owner,
            "app": roles.app,
            "auditor": roles.auditor,
            "reader": roles.reader,
        },
        revision=revision.id,
        lock_timeout=int(patience.lock * _MS),
        statement_timeout=int(patience.statement * _MS),
    )
    directory = ctx.ports.templates.current(script.template).directory
    (result,) = await upgrade_many(directory, [job])
    if result.error is not None:
        raise tenant_migration.problem(revision, result.sqlstate or "", result.error)


VERB = Verb(
    plan=PLANS["migrate"],
    steps=(record_restore_point, apply_revision, verify_schema, record_revision),
)
