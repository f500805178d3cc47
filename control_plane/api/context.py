"""What a handler gets: who asks, what to ask with, and under which idempotency key."""

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias, TypeVar, cast

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.params import HeaderParameter, SkipValidation

from control_plane.api.correlation import request_id
from control_plane.api.limits import Limits
from control_plane.api.words import IDEMPOTENCY_KEY
from control_plane.catalog.audit import Caller
from control_plane.catalog.catalog_life import require_usable
from control_plane.catalog.idempotency import Fingerprint, SavedAnswer
from control_plane.catalog.pool import Connection
from control_plane.domain.keys import Principal
from control_plane.domain.operations import Operation
from control_plane.services.changes import Changes
from control_plane.services.ports import Ports
from control_plane.services.requests import Effect, perform, recall

_ACCEPTED_SECONDS = 5.0
View = TypeVar("View", bound=msgspec.Struct)
AnyConnection: TypeAlias = ASGIConnection[Any, Any, Any, Any]


class Process(msgspec.Struct, frozen=True):
    """What one API process has; it is ``app.state.process``."""

    ports: Ports
    changes: Changes
    limits: Limits
    checking: asyncio.Lock
    acceptance: "Acceptance"


class Acceptance:
    """That the catalog is one to work from, as seen a few seconds ago at most."""

    def __init__(self) -> None:
        self._until = 0.0

    async def require(self, ports: Ports) -> None:
        """Make sure that nothing is changed in a catalog that is not for this process.

        Raises:
            CatalogMismatch: its schema is older than this code, or too new for it.
            CatalogNotAccepted: it is a restored copy.
        """
        now = asyncio.get_running_loop().time()
        if now < self._until:
            return
        async with ports.catalog.connection() as db:
            await require_usable(db)
        self._until = now + _ACCEPTED_SECONDS


class Asking(msgspec.Struct, frozen=True):
    """A request that only reads."""

    ports: Ports
    caller: Caller


class Changing(msgspec.Struct, frozen=True):
    """A request that changes something, at most once per ``Idempotency-Key``."""

    ports: Ports
    caller: Caller
    fingerprint: Fingerprint | None

    async def recall(self) -> SavedAnswer | None:
        """The answer already given under this ``Idempotency-Key``, if there is one."""
        return await recall(self.ports, self.fingerprint)

    async def perform(self, effect: Callable[[Connection], Awaitable[Effect]]) -> SavedAnswer:
        """Carry out ``effect`` in one transaction, or return the answer already given."""
        return await perform(self.ports, self.fingerprint, effect)


Reading: TypeAlias = NamedDependency[SkipValidation[Asking]]
Writing: TypeAlias = NamedDependency[SkipValidation[Changing]]


def process_of(connection: AnyConnection) -> Process:
    return cast("Process", connection.app.state.process)


def caller_of(connection: AnyConnection) -> Caller:
    """The principal, the socket's address and the request id, as the audit log wants them."""
    return Caller(
        principal=cast("Principal", connection.user),
        address=address_of(connection),
        correlation_id=request_id(connection.scope),
    )


def address_of(connection: AnyConnection) -> str | None:
    """The address of the socket, if it has one.

    Only the server process can know it: run it without proxy headers, which anybody can write.
    """
    host = connection.client.host if connection.client else ""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def provide_asking(request: Request[Any, Any, Any]) -> Asking:
    return Asking(process_of(request).ports, caller_of(request))


async def provide_changing(
    request: Request[Any, Any, Any],
    idempotency_key: Annotated[
        str | None,
        HeaderParameter(
            name="Idempotency-Key",
            pattern=IDEMPOTENCY_KEY,
            description="A repeat with the same key and body gets the first answer again.",
        ),
    ] = None,
) -> Changing:
    caller = caller_of(request)
    fingerprint = None
    if idempotency_key is not None:
        digest = await _request_hash(request)
        fingerprint = Fingerprint(caller.principal.key_id, idempotency_key, digest)
    return Changing(process_of(request).ports, caller, fingerprint)


async def _request_hash(request: Request[Any, Any, Any]) -> bytes:
    """Tells one request from another; keyed by the token, which the catalog does not have.

    A plain hash would let whoever reads the catalog guess at short secrets in bodies.
    """
    digest = hmac.new(request.headers["Authorization"].encode(), digestmod=hashlib.sha256)
    for part in (request.method, request.url.path, request.url.query):
        digest.update(part.encode() + b"\0")
    digest.update(await request.body())
    return digest.digest()


DEPENDENCIES = {
    "asking": Provide(provide_asking, sync_to_thread=False),
    "changing": Provide(provide_changing),
}


def effect(status: int, view: msgspec.Struct, operation: Operation | None = None) -> Effect:
    """An effect whose answer is ``view``."""
    return Effect(SavedAnswer(status, msgspec.to_builtins(view)), operation)


def answer(saved: SavedAnswer, view: type[View]) -> Response[Any]:
    """The response of a first request and of its repeats alike, to the byte.

    The catalog keeps the body as ``jsonb``, which forgets the order of the fields.
    """
    headers = {}
    if str(saved.body.get("id")).startswith("op_"):
        headers["Location"] = f"/v1/operations/{saved.body['id']}"
    body: msgspec.Struct | dict[str, Any]
    try:
        body = msgspec.convert(saved.body, view)
    except msgspec.ValidationError:
        body = saved.body  # saved by an earlier version
    return Response(body, status_code=saved.status, headers=headers, media_type="application/json")
