"""Publishing, withdrawing and proving a tenant's route, over every pooler of its cell."""

from uuid import UUID

from control_plane.adapters.tenant_login import Answer, Endpoint, try_everywhere
from control_plane.catalog import databases, poolers, routes, servers, tenants
from control_plane.catalog.databases import Credential
from control_plane.catalog.poolers import Pooler
from control_plane.catalog.routes import Route
from control_plane.domain.errors import LoginFailed, LoginStillWorks, PoolerUnavailable
from control_plane.domain.names import SESSION_SUFFIX
from control_plane.router.credentials import open_credential
from workers.engine.step import Done, Outcome, StepContext, Wait

_AGENT_AWAY_SECONDS = 2.0


async def publish(ctx: StepContext) -> Outcome:
    """The tenant's alias leads to its primary database on every living pooler."""
    if ctx.waited_seconds == 0.0:
        async with ctx.catalog_write() as db:
            tenant = await tenants.get(db, ctx.tenant_id)
            database = await databases.primary(db, ctx.tenant_id)
            known = await routes.find(db, ctx.tenant_id)
            cell_id = await tenants.cell_id(db, ctx.tenant_id)
            host, port = await _endpoint(ctx, cell_id, known)
            limits = tenant.limits
            await routes.put(
                db,
                routes.NewRoute(
                    tenant_id=tenant.id,
                    cell_id=cell_id,
                    alias=tenant.slug,
                    database_id=database.id,
                    generation=database.generation,
                    pool_size=limits.pool_size,
                    session_pool_size=limits.session_pool_size,
                    endpoint_host=host,
                    endpoint_port=port,
                ),
            )
    return await served(ctx)


async def announce(ctx: StepContext) -> Outcome:
    """Every living pooler has read the tenant's present logins."""
    if ctx.waited_seconds == 0.0:
        await _touch(ctx, None)
    return await served(ctx)


async def withdraw(ctx: StepContext) -> None:
    """No pooler shall serve the tenant any more; agents hear of it at commit."""
    await _touch(ctx, "withdrawn")


async def served(ctx: StepContext) -> Outcome:
    """Wait until every living pooler serves the route as it is now."""
    async with ctx.catalog_read() as db:
        route = await routes.find(db, ctx.tenant_id)
        if route is None:
            return Done("no route")
        every = await poolers.every(db, route.cell_id)
    behind = [pooler for pooler in every if pooler.served_version < route.version]
    late = sorted(pooler.name for pooler in behind if pooler.alive)
    if late:
        return Wait(_patience(ctx), f"waiting for {', '.join(late)}")
    following = sorted(pooler.name for pooler in every if pooler not in behind)
    if not following and route.state == "published":
        return Wait(_AGENT_AWAY_SECONDS, "no pooler of the cell is alive; start one")
    away = [f"{pooler.name} is away and catches up at its start" for pooler in behind]
    what = "served by" if route.state == "published" else "no longer served by"
    return Done("; ".join([f"{what} {', '.join(following) or 'any'}", *away]))


async def verify_works(ctx: StepContext, credential: Credential) -> Outcome:
    """The login gets in through every living pooler to its own database, on both endpoints.

    The session endpoint is tried at one pooler: agents read back every entry they wrote.

    Raises:
        LoginFailed: it does not somewhere; the message says where and why.
    """
    doors = await _pooler_doors(ctx)
    if not doors:
        raise LoginFailed("no pooler of the cell is alive")
    answers = await _try(ctx, doors, credential)
    wrong = [
        f"{answer.endpoint}: {answer.refusal or 'reached another tenant'}"
        for answer in answers
        if answer.tenant_id != ctx.tenant_id or answer.login != credential.login
    ]
    if wrong:
        raise LoginFailed(f"{credential.login} cannot work at {'; '.join(wrong)}")
    return Done(f"{credential.login} at {len(answers)} endpoints")


async def verify_closed(ctx: StepContext) -> Outcome:
    """No login of the tenant gets in anywhere: through no pooler, nor at the server itself.

    Raises:
        LoginStillWorks: one does; the message says where.
    """
    async with ctx.catalog_read() as db:
        database = await databases.primary(db, ctx.tenant_id)
        server = await servers.get(db, database.server_id)
        held = await databases.credentials(db, database.role_set_id)
    doors = await _pooler_doors(ctx)
    doors.append(Endpoint(server.name, server.hostaddr, server.port, database.name))
    open_doors: list[str] = []
    for credential in held.values():
        answers = await _try(ctx, doors, credential)
        open_doors += [answer.endpoint for answer in answers if answer.refusal is None]
    if open_doors:
        raise LoginStillWorks(f"the tenant still gets in at {', '.join(sorted(set(open_doors)))}")
    return Done(f"refused at {len(doors)} endpoints")


async def _touch(ctx: StepContext, state: routes.RouteState | None) -> None:
    async with ctx.catalog_write() as db:
        route = await routes.find(db, ctx.tenant_id)
        if route is not None:
            await routes.touch(db, route, state)


async def _endpoint(ctx: StepContext, cell_id: UUID, known: Route | None) -> tuple[str, int]:
    """The address in the tenant's DSN: chosen once, by the tenant's id, and kept for life."""
    if known is not None:
        return known.endpoint_host, known.endpoint_port
    async with ctx.catalog_read() as db:
        every = await poolers.every(db, cell_id)
    if not every:
        raise PoolerUnavailable("the tenant's cell has no pooler; start one")
    chosen = every[ctx.tenant_id.int % len(every)]
    return chosen.host, chosen.port


async def _pooler_doors(ctx: StepContext) -> list[Endpoint]:
    async with ctx.catalog_read() as db:
        route = await routes.find(db, ctx.tenant_id)
        every: list[Pooler] = await poolers.every(db, route.cell_id) if route else []
    if route is None:
        return []
    doors = []
    for pooler in every:
        if pooler.alive:
            home = (pooler.host, pooler.port) == (route.endpoint_host, route.endpoint_port)
            doors += _doors_of(pooler, route.alias, home=home)
    return doors


def _doors_of(pooler: Pooler, alias: str, *, home: bool) -> list[Endpoint]:
    """The pooler's transaction endpoint; both endpoints of the pooler in the tenant's DSN."""
    session = alias + SESSION_SUFFIX
    doors = [Endpoint(f"{pooler.name}/{alias}", pooler.host, pooler.port, alias, keep_warm=home)]
    if home:
        doors.append(Endpoint(f"{pooler.name}/{session}", pooler.host, pooler.port, session))
    return doors


async def _try(ctx: StepContext, doors: list[Endpoint], credential: Credential) -> list[Answer]:
    password = open_credential(ctx.ports.keyring, credential)
    return await try_everywhere(doors, credential.login, password)


def _patience(ctx: StepContext) -> float:
    """An acknowledgement takes milliseconds when all is well: look often, then less often."""
    return min(0.5, 0.004 + ctx.waited_seconds / 4)
