"""What may be asked of those who make servers: a new one, to have it deleted, what there is."""

import secrets
from uuid import UUID

import msgspec

from control_plane.adapters import clock
from control_plane.adapters.providers.opening import SWITCHES
from control_plane.adapters.providers.provider import Provider
from control_plane.catalog import audit, databases, operations, provided_servers, servers
from control_plane.catalog.audit import Caller, Entry
from control_plane.catalog.databases import Purpose
from control_plane.catalog.operations import NewOperation
from control_plane.catalog.pool import Connection
from control_plane.catalog.provided_servers import ProvidedServer
from control_plane.config import Secret
from control_plane.domain.errors import Conflict, Invalid, NotFound, ProviderUnavailable
from control_plane.domain.operations import Operation
from control_plane.domain.plans import PLANS, Kind
from control_plane.domain.providers import ProviderKind, ServerWish
from control_plane.services.addresses import open_admin_password, seal_admin_password
from control_plane.services.ports import Ports
from control_plane.services.servers import refuse_name

_PASSWORD_BYTES = 32
# Made ahead, or on their way out: the deletion sees to these.
_PASSING: tuple[Purpose, ...] = ("preparing", "pooled", "condemned")


class NewProvidedServer(msgspec.Struct, frozen=True):
    """A request for a server that does not exist yet."""

    name: str
    provider: ProviderKind
    wish: ServerWish


async def create_server(
    db: Connection, ports: Ports, caller: Caller, wanted: NewProvidedServer
) -> Operation:
    """Have a server made and enrolled.

    Raises:
        Invalid: the provider is not set up, or cannot do what is wished; every field is named.
        Conflict: the name is in use.
    """
    operation = await begin_creation(db, ports, wanted, caller.principal.name)
    facts: dict[str, object] = {"provider": wanted.provider, **msgspec.to_builtins(wanted.wish)}
    await audit.record(db, caller, Entry("server.create", wanted.name, facts=facts))
    return operation


async def begin_creation(
    db: Connection, ports: Ports, wanted: NewProvidedServer, actor: str
) -> Operation:
    """``create_server``, whoever asks. The password is sealed here, before anybody is given it."""
    problems = _known_provider(ports, wanted.provider).problems(wanted.wish)
    if problems:
        listed = "; ".join(f"{one['field']}: {one['message']}" for one in problems)
        raise Invalid(f"{wanted.provider} cannot make server {wanted.name!r}: {listed}", problems)
    await refuse_name(db, wanted.name)
    key = clock.new_id()
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    try:
        async with db.transaction():
            await provided_servers.insert(
                db,
                key=key,
                name=wanted.name,
                provider=wanted.provider,
                wish=wanted.wish,
                sealed_password=seal_admin_password(ports.keyring, key, password),
            )
    except Exception as error:
        if getattr(error, "constraint_name", None) != "provided_servers_name":
            raise
        raise Conflict(f"{wanted.name} was asked for by another request a moment ago") from error
    return await _record(db, "create_server", key, wanted.name, actor, {})


async def delete_server(
    db: Connection, caller: Caller, name: str, *, lost: bool = False
) -> Operation:
    """Have a server that a provider made taken out of the fleet and deleted.

    Before it is, it is asked whether it has a database that the catalog does not know; not so when
    it is ``lost``, and will never answer again.

    Raises:
        NotFound: no provider made a server of this name.
        Conflict: it holds tenants.
        OperationInProgress: it is being created or deleted.
    """
    made = await provided_servers.find(db, name)
    if made is None:
        raise NotFound(f"no provider made a server {name!r}; see: tenantry servers remove")
    there = await databases.on_server(db, made.id)
    if held := [one for one in there if one.purpose not in _PASSING]:
        noun = "database" if len(held) == 1 else "databases"
        raise Conflict(
            f"server {name} still holds {len(held)} {noun} of tenants; move or delete them first "
            f"(see: tenantry tenants list --server {name})"
        )
    # From here on no request can place a tenant there.
    await servers.change_state(db, made.id, expected=("active",), wanted="draining")
    operation = await begin_deletion(db, made.id, made.name, caller.principal.name, lost=lost)
    facts: dict[str, object] = {"lost": True} if lost else {}
    await audit.record(db, caller, Entry("server.delete", name, facts=facts))
    return operation


async def begin_deletion(
    db: Connection, key: UUID, name: str, actor: str, *, lost: bool = False
) -> Operation:
    """``delete_server``, whoever asks.

    Raises:
        OperationInProgress: it is being created or deleted.
    """
    return await _record(db, "delete_server", key, name, actor, {"lost": True} if lost else {})


async def list_provided(db: Connection) -> list[ProvidedServer]:
    """Every server that a provider made and has not deleted, by name."""
    return await provided_servers.every(db)


def key_of(operation: Operation) -> UUID:
    """The server that an operation of this kind is about."""
    return UUID(operation.input["provided"])


def provider_of(ports: Ports, made: ProvidedServer) -> Provider:
    """Who made this server.

    Raises:
        ProviderUnavailable: it is not set up any more.
    """
    found = ports.providers.get(made.provider)
    if found is None:
        raise ProviderUnavailable(
            f"{made.name} was made by {made.provider}, which this process knows nothing of; "
            f"set {SWITCHES[made.provider]} again"
        )
    return found


def password_of(ports: Ports, made: ProvidedServer) -> Secret:
    """The password of its administrator, while it is being made.

    Raises:
        KeyUnavailable: the keyring does not open it.
    """
    return open_admin_password(ports.keyring, made.id, made.sealed_password or b"")


def _known_provider(ports: Ports, kind: ProviderKind) -> Provider:
    found = ports.providers.get(kind)
    if found is None:
        message = f"{kind} is not set up here; set {SWITCHES[kind]} (docs/providers.md)"
        raise Invalid(f"provider: {message}", [{"field": "provider", "message": message}])
    return found


async def _record(
    db: Connection, kind: Kind, key: UUID, name: str, actor: str, more: dict[str, object]
) -> Operation:
    return await operations.insert(
        db,
        NewOperation(
            id=clock.new_id(),
            plan=PLANS[kind],
            subject=name,
            actor=actor,
            input={"provided": str(key), **more},
        ),
    )
