"""A server made for one tenant, and the tenant moved there: the request, and what follows."""

from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.catalog import audit, databases, moves, operations, servers, tenants
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.domain.errors import Conflict, Denied, Invalid
from control_plane.domain.keys import may
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS
from control_plane.domain.tenants import Tenant
from control_plane.services.moves import NewMoveWish, begin_move, require_active
from control_plane.services.ports import Ports
from control_plane.services.providing import NewProvidedServer, create_server
from control_plane.services.tenants import find_tenant

_CREATES = "createServer"
_MAJOR = 10_000


class Chain(msgspec.Struct, frozen=True):
    """What the operation carries: the two that it consists of, and what the second is asked."""

    tenant: UUID
    server: str
    creation: UUID
    move: UUID
    pause_budget_ms: int
    offline: bool


async def move_to_new(
    db: Connection,
    ports: Ports,
    caller: Caller,
    slug_or_id: str,
    wanted: NewProvidedServer,
    wish: NewMoveWish,
) -> Operation:
    """Have a server made for a tenant, and the tenant moved there.

    Raises:
        Denied: the caller may move tenants, but not create servers.
        Conflict: an earlier move is neither finished nor reversed, or the name is in use.
        Invalid, NotFound, WrongState: see there.
    """
    if not may(caller.principal, _CREATES):
        raise Denied(f"a move to a new server needs the permission {_CREATES}, too")
    tenant = await find_tenant(db, caller, slug_or_id)
    await require_active(db, tenant)
    if await moves.open_one(db, tenant.id) is not None:
        raise Conflict(
            f"{tenant.slug} can still go back from its last move; first: "
            f"tenantry move finish {tenant.slug} (or move reverse)"
        )
    version = await _version(db, tenant, wanted.wish.version)
    # Nobody else: until the tenant moves in the server is drained, and then it is full.
    alone = msgspec.structs.replace(
        wanted.wish,
        version=version,
        reserved=True,
        capacity=1,
        tier="dedicated" if tenant.tier == "dedicated" else None,
    )
    creation = await create_server(db, ports, caller, msgspec.structs.replace(wanted, wish=alone))
    operation = await _record(
        db,
        caller,
        tenant.slug,
        Chain(
            tenant.id, wanted.name, creation.id, clock.new_id(), wish.pause_budget_ms, wish.offline
        ),
    )
    facts: dict[str, object] = {"to": wanted.name, "operation": show("op", operation.id)}
    await audit.record(
        db, caller, Entry("tenant.move", tenant.slug, tenant_id=tenant.id, facts=facts)
    )
    return operation


async def _version(db: Connection, tenant: Tenant, wanted: int | None) -> int:
    """The major version of the new server: that of the tenant's, unless a newer one is wanted."""
    server = await servers.get(db, (await databases.primary(db, tenant.id)).server_id)
    major = server.version_num // _MAJOR
    if wanted is not None and wanted < major:
        message = f"{server.name} is Postgres {major}: use that version or a newer one"
        raise Invalid(f"new_server: {message}", [{"field": "new_server", "message": message}])
    return wanted or major


async def begin(db: Connection, chain: Chain, actor: str) -> Operation:
    """The move itself, once the server is there: it is opened and filled in one transaction.

    Raises:
        OperationInProgress: the tenant is busy.
        Conflict, Invalid, NoCapacity, WrongState: see ``move_tenant``.
    """
    server = await servers.find(db, chain.server)
    await servers.change_state(db, server.id, expected=("draining",), wanted="active")
    tenant = await tenants.get(db, chain.tenant)
    wish = NewMoveWish(chain.server, chain.pause_budget_ms, chain.offline)
    return await begin_move(db, tenant, wish, actor, key=chain.move)


def chain_of(operation: Operation) -> Chain:
    """What this operation consists of."""
    return msgspec.convert(operation.input, Chain)


async def _record(db: Connection, caller: Caller, slug: str, chain: Chain) -> Operation:
    return await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS["move_to_new"],
            subject=slug,
            actor=caller.principal.name,
            input=msgspec.to_builtins(chain),
        ),
    )
