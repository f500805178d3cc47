"""What beat asks for: small looks that find work and hand it to operations.

Every tick may run late, twice or not at all; each only does what is due now.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from control_plane.adapters import clock
from control_plane.adapters.template_files import Template
from control_plane.catalog import (
    audit,
    databases,
    idempotency,
    leases,
    operations,
    routes,
    servers,
    tenants,
)
from control_plane.catalog.audit import Entry
from control_plane.catalog.databases import Database
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server
from control_plane.config import DEFAULT_TEMPLATE
from control_plane.domain.errors import Conflict, SchemaMismatch
from control_plane.domain.names import database_name, show
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.router.credentials import new_credential
from control_plane.services import check
from control_plane.services.ports import Ports
from control_plane.services.reclaiming import condemn
from control_plane.services.servers import watch_servers

_log = structlog.get_logger(__name__)
_SYSTEM = "system"
_RETIREMENTS_AT_ONCE = 50
_PREPARING_AT_ONCE = 2
_IDEMPOTENCY_HOURS = 48
_AFTER_FAILURE_MINUTES = 10


async def retire_due_logins(ports: Ports) -> None:
    """Begin to retire every login whose grace after a rotation is over."""
    async with ports.catalog.connection() as db:
        due = await databases.due_retirements(db, _RETIREMENTS_AT_ONCE)
    for tenant_id, slot in due:
        try:
            async with ports.catalog.transaction() as db:
                tenant = await tenants.get(db, tenant_id)
                operation = await operations.insert(
                    db,
                    NewOperation(
                        id=clock.new_id(),
                        plan=PLANS["retire_login"],
                        subject=tenant.slug,
                        actor=_SYSTEM,
                        tenant_id=tenant_id,
                        input={"slot": slot},
                    ),
                )
        except Conflict:
            continue
        await ports.doorbell.ring(operation.id, operation.queue)


async def release_stale_pauses(ports: Ports) -> None:
    """Resume what a dead or overlong operation left paused (agents do it too)."""
    async with ports.catalog.transaction() as db:
        for tenant_id, operation_id in await routes.stale_pauses(db):
            if await routes.end_pause(db, tenant_id, operation_id=operation_id):
                facts: dict[str, object] = {"operation": show("op", operation_id)}
                tenant = await tenants.get(db, tenant_id)
                await audit.record_system(
                    db, Entry("route.resume", tenant.slug, tenant_id=tenant_id, facts=facts)
                )


async def tend_pools(ports: Ports) -> None:
    """Keep every server's pool of ready databases filled, gently, and of the present template."""
    templates = _readable(ports)
    async with ports.catalog.transaction() as db:
        begun: list[Operation] = []
        pooled = templates.get(DEFAULT_TEMPLATE)
        if pooled is not None:
            begun += await _replace_outdated(db, pooled)
        for server in await servers.every(db):
            if server.state == "active" and server.reachable:
                begun += await _tend_templates(db, server, templates.values())
                if pooled is not None:
                    begun += await _tend_pool(db, ports, server, pooled)
    for operation in begun:
        await ports.doorbell.ring(operation.id, operation.queue)


def _readable(ports: Ports) -> dict[str, Template]:
    """The templates by name; one whose files are broken just now stops no other."""
    found: dict[str, Template] = {}
    for name in ports.templates.names:
        try:
            found[name] = ports.templates.current(name)
        except SchemaMismatch as error:
            _log.warning("template_unreadable", template=name, error=error.message)
    return found


async def _replace_outdated(db: Connection, template: Template) -> list[Operation]:
    outdated = await databases.outdated_pooled(db, template.name, template.fingerprint)
    return [await condemn(db, database, _SYSTEM) for database in outdated]


async def _tend_templates(
    db: Connection, server: Server, templates: Iterable[Template]
) -> list[Operation]:
    begun: list[Operation] = []
    for template in templates:
        if await servers.template_revision(db, server.id, template.fingerprint) is None:
            begun += await _build_template(db, server, template)
    return begun


async def _tend_pool(
    db: Connection, ports: Ports, server: Server, template: Template
) -> list[Operation]:
    if await servers.template_revision(db, server.id, template.fingerprint) is None:
        return []
    if await operations.tenants_wait(db, server.id):
        return []  # tenants that wait come first; the pool is for those after them
    if await operations.failed_lately(db, server.id, "prepare", minutes=_AFTER_FAILURE_MINUTES):
        return []  # what stopped the last one will stop the next: do not churn the server
    held = await databases.pool_counts(db, server.id, template.fingerprint)
    room = min(ports.settings.pool_target, server.capacity - server.placed) - held.total
    wanted = max(0, min(room, _PREPARING_AT_ONCE - held.preparing))
    return [await _prepare(db, ports, server, template) for _ in range(wanted)]


async def _build_template(db: Connection, server: Server, template: Template) -> list[Operation]:
    if await operations.failed_lately(
        db, server.id, "enrol", minutes=_AFTER_FAILURE_MINUTES, content=template.fingerprint
    ):
        return []
    try:
        return [
            await operations.insert(
                db,
                NewOperation(
                    id=clock.new_id(),
                    plan=PLANS["enrol"],
                    subject=server.name,
                    actor=_SYSTEM,
                    server_id=server.id,
                    input={"template": template.name, "content": template.fingerprint},
                ),
            )
        ]
    except Conflict:
        return []


async def _prepare(db: Connection, ports: Ports, server: Server, template: Template) -> Operation:
    database = await _insert_unclaimed(db, ports, server, template)
    return await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["prepare"],
            subject=database.name,
            actor=_SYSTEM,
            server_id=server.id,
            database_id=database.id,
        ),
    )


async def _insert_unclaimed(
    db: Connection, ports: Ports, server: Server, template: Template
) -> Database:
    database_id = clock.new_id()
    await databases.insert_role_set(db, database_id)
    await databases.put_credential(
        db, new_credential(ports.keyring, database_id, "a", version=1, state="active")
    )
    database = Database(
        id=database_id,
        role_set_id=database_id,
        tenant_id=None,
        server_id=server.id,
        name=database_name(database_id),
        template=template.name,
        template_fingerprint=template.fingerprint,
        schema_revision=None,
        generation=1,
        purpose="preparing",
        created_at=clock.now(),
    )
    await databases.insert(db, database)
    return database


async def alert_overdue(ports: Ports) -> None:
    """Tell once of every operation that is past its deadline and still alive."""
    async with ports.catalog.transaction() as db:
        for operation in await leases.overdue(db):
            shown = show("op", operation.id)
            _log.error("operation_overdue", operation=shown, kind=operation.kind)
            await audit.record_system(
                db,
                Entry(
                    "operation.overdue",
                    operation.subject,
                    tenant_id=operation.tenant_id,
                    outcome="failed",
                    facts={"operation": shown, "kind": operation.kind},
                ),
            )


async def reset_drift(ports: Ports) -> None:
    """Put back what a login changed about itself (S-06) and whatever else is safe to repair."""
    await check.repair_safe(ports)


async def forget_old(ports: Ports) -> None:
    """Drop idempotency keys whose time is over."""
    async with ports.catalog.connection() as db:
        await idempotency.forget_old(db, hours=_IDEMPOTENCY_HOURS)


TICKS: Mapping[str, Callable[[Ports], Awaitable[None]]] = {
    tick.__name__: tick
    for tick in (
        retire_due_logins,
        release_stale_pauses,
        tend_pools,
        watch_servers,
        alert_overdue,
        reset_drift,
        forget_old,
    )
}
