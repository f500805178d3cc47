"""What may be asked about moves: begin one, go back, give the old database up, look at them."""

from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import audit, databases, moves, operations, servers, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.databases import Database
from control_plane.catalog.moves import Move, NewMove
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.catalog.servers import Server
from control_plane.domain.errors import Conflict, Invalid, NoCapacity, NotFound, WrongState
from control_plane.domain.moves import PAUSE_BUDGET_MS
from control_plane.domain.names import database_name, show
from control_plane.domain.operations import Operation
from control_plane.domain.placement import Wish, refusal
from control_plane.domain.plans import PLANS, Kind
from control_plane.domain.tenants import Tenant
from control_plane.services.ports import Ports
from control_plane.services.tenants import find_tenant

_SHOWN = 20


class NewMoveWish(msgspec.Struct, frozen=True):
    """Where to; ``offline`` allows that the tenant is closed while its rows are copied."""

    server: str
    pause_budget_ms: int = PAUSE_BUDGET_MS
    offline: bool = False


async def move_tenant(
    db: Connection, caller: Caller, slug_or_id: str, wanted: NewMoveWish
) -> Operation:
    """Begin to move a tenant to another server.

    Raises:
        Invalid: there is no such server, or the tenant is on it.
        NoCapacity: the server cannot take it; the message says why.
        Conflict: an earlier move is neither finished nor reversed.
        NotFound, WrongState, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    operation = await begin_move(db, tenant, wanted, caller.principal.name)
    facts: dict[str, object] = {"to": wanted.server, "operation": show("op", operation.id)}
    await audit.record(
        db, caller, Entry("tenant.move", tenant.slug, tenant_id=tenant.id, facts=facts)
    )
    return operation


async def begin_move(
    db: Connection, tenant: Tenant, wanted: NewMoveWish, actor: str, key: UUID | None = None
) -> Operation:
    """``move_tenant``, whoever asks; the operation has this id, if one is given."""
    target = await _target(db, wanted.server)
    asked: dict[str, object] = {"server": wanted.server, "offline": wanted.offline}
    operation = await _record(db, "move", tenant, actor, asked, key)
    await require_active(db, tenant)
    if await moves.open_one(db, tenant.id) is not None:
        raise Conflict(
            f"{tenant.slug} can still go back from its last move; first: "
            f"tenantry move finish {tenant.slug} (or move reverse)"
        )
    live = await databases.primary(db, tenant.id)
    if live.server_id == target.id:
        message = f"{tenant.slug} is on {target.name} already"
        raise Invalid(message, [{"field": "server", "message": message}])
    await _take_place(db, tenant, live, target)
    coming = _coming(live, target)
    await databases.insert(db, coming)
    await moves.insert(db, NewMove(operation.id, live, coming, wanted.pause_budget_ms))
    return operation


async def reverse_move(db: Connection, caller: Caller, slug_or_id: str) -> Operation:
    """Bring a tenant back to the server it came from, with everything written since.

    Raises:
        WrongState: there is no move to go back from, or it was made offline.
        NotFound, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    operation = await _record(db, "move_reverse", tenant, caller.principal.name, {})
    await require_active(db, tenant)
    move = await _reversible(db, tenant)
    if move.method != "online":
        raise WrongState(
            f"{tenant.slug} was moved while it was closed: changes do not flow back; "
            "move it again instead"
        )
    await audit.record(db, caller, Entry("tenant.move_reverse", tenant.slug, tenant_id=tenant.id))
    return operation


async def finish_move(
    db: Connection, ports: Ports, caller: Caller, slug_or_id: str, *, without_backup: bool
) -> Operation:
    """Give the old database up.

    Raises:
        Conflict: no backup of the new one was verified yet.
        WrongState: there is no move to finish.
        NotFound, OperationInProgress: see there.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    operation = await _record(
        db, "move_finish", tenant, caller.principal.name, {"without_backup": without_backup}
    )
    move = await _reversible(db, tenant)
    if not without_backup:
        if ports.store is None:
            raise Conflict(
                "no backup store is configured, so no backup can be verified first; set "
                "TENANTRY_BACKUP_STORE, or finish with --without-backup"
            )
        await require_backup(db, move)
    facts: dict[str, object] = {"without_backup": without_backup}
    await audit.record(
        db, caller, Entry("tenant.move_finish", tenant.slug, tenant_id=tenant.id, facts=facts)
    )
    return operation


async def list_moves(db: Connection, caller: Caller, slug_or_id: str) -> list[Move]:
    """The newest moves of a tenant.

    Raises:
        NotFound: there is no such tenant.
    """
    tenant = await find_tenant(db, caller, slug_or_id)
    return await moves.of_tenant(db, tenant.id, _SHOWN)


async def require_backup(db: Connection, move: Move) -> str:
    """A backup of the new database that was restored and found equal, in words.

    Raises:
        Conflict: there is none; the message says how to get one.
    """
    tenant = await tenants.get(db, move.tenant_id)
    found = await moves.verified_backup(db, move)
    if found is None:
        raise Conflict(
            f"no backup of {tenant.slug} made after its move was verified; first: tenantry backup "
            f"{tenant.slug}, then tenantry backups verify BK; or finish with --without-backup"
        )
    return f"backup {show('bk', found)} is verified"


async def _target(db: Connection, name: str) -> Server:
    try:
        return await servers.find(db, name)
    except NotFound as error:
        message = f"there is no server {name!r}; see: tenantry servers list"
        raise Invalid(message, [{"field": "server", "message": message}]) from error


async def _take_place(db: Connection, tenant: Tenant, live: Database, target: Server) -> None:
    snapshot = await servers.capacities(db, live.template, live.template_fingerprint)
    there = next((each for each in snapshot if each.id == target.id), None)
    words = refusal(there, Wish(tenant.tier)) if there is not None else "is gone"
    if words is not None:
        raise NoCapacity(f"{target.name} cannot take {tenant.slug}: it {words}")
    if not await servers.reserve(db, target.id, alone=tenant.tier == "dedicated"):
        raise NoCapacity(f"{target.name} filled up a moment ago")


def _coming(live: Database, target: Server) -> Database:
    database_id = clock.new_id()
    return msgspec.structs.replace(
        live,
        id=database_id,
        server_id=target.id,
        name=database_name(database_id),
        generation=live.generation + 1,
        purpose="moving",
        created_at=clock.now(),
        backup_id=None,
        holds_place=True,
    )


async def _reversible(db: Connection, tenant: Tenant) -> Move:
    move = await moves.open_one(db, tenant.id)
    if move is None or move.state != "reversible":
        raise WrongState(f"{tenant.slug} has no move that could be reversed or finished")
    return move


async def require_active(db: Connection, tenant: Tenant) -> None:
    """Check that a tenant can be moved at all.

    Raises:
        WrongState: it is not active.
    """
    now = await tenants.get(db, tenant.id)
    if now.state != "active":
        raise WrongState(f"{now.slug} is {now.state}; only an active tenant can be moved")


async def _record(
    db: Connection,
    kind: Kind,
    tenant: Tenant,
    actor: str,
    details: dict[str, object],
    key: UUID | None = None,
) -> Operation:
    return await operations.insert(
        db,
        NewOperation(
            id=key or clock.new_id(),
            plan=PLANS[kind],
            subject=tenant.slug,
            actor=actor,
            tenant_id=tenant.id,
            input=details,
        ),
    )
