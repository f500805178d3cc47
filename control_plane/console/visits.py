"""What a page gets: who looks, what to ask with, and the session behind it."""

import hashlib
import ipaddress
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation
from litestar.types import HTTPScope, Scope

from control_plane.catalog.audit import Caller
from control_plane.catalog.idempotency import Fingerprint, SavedAnswer
from control_plane.catalog.people import Session
from control_plane.catalog.pool import Connection
from control_plane.domain.keys import may
from control_plane.domain.names import show
from control_plane.domain.operations import Operation
from control_plane.services.changes import Changes
from control_plane.services.limiting import Limiter
from control_plane.services.ports import Ports
from control_plane.services.rehearsal import rehearse
from control_plane.services.requests import Effect, perform

AnyConnection: TypeAlias = ASGIConnection[Any, Any, Any, Any]
AnyRequest: TypeAlias = Request[Any, Any, Any]
Work: TypeAlias = Callable[[Connection], Awaitable[Operation]]


class Limits(msgspec.Struct, frozen=True):
    """How often: attempts to sign in per account and address, showings of secrets per person."""

    accounts: Limiter
    addresses: Limiter
    reveals: Limiter


class Desk(msgspec.Struct, frozen=True):
    """What the console of one process has; it is ``app.state.desk``."""

    ports: Ports
    changes: Changes
    limits: Limits

    @property
    def secure(self) -> bool:
        """Whether browsers reach the console by https."""
        return (self.ports.settings.console.public_url or "").startswith("https://")


class Visit(msgspec.Struct, frozen=True):
    """One request of somebody who is signed in."""

    desk: Desk
    caller: Caller
    session: Session
    token: str

    @property
    def ports(self) -> Ports:
        return self.desk.ports

    def may(self, operation_id: str) -> bool:
        """Whether one of the person's roles allows this operation."""
        return may(self.caller.principal, operation_id)

    async def begin(self, work: Work, key: str, form: dict[str, str]) -> str:
        """Let ``work`` record an operation, once per ``key``; its ``op_`` id.

        The form carries the key, so that a double click or a reload does not do it twice.
        """
        fingerprint = Fingerprint(self.caller.principal.key_id, key, _digest(self.token, form))

        async def effect(db: Connection) -> Effect:
            operation = await work(db)
            return Effect(SavedAnswer(202, {"id": show("op", operation.id)}), operation)

        saved = await perform(self.ports, fingerprint, effect)
        return str(saved.body["id"])

    async def rehearse(self, work: Work) -> Operation:
        """The operation that ``work`` would record at this moment; nothing is kept."""
        return await rehearse(self.ports, work)


Visiting: TypeAlias = NamedDependency[SkipValidation[Visit]]


def new_form_key() -> str:
    """The key of one form: whatever is sent with it happens at most once."""
    return secrets.token_urlsafe(18)


def desk_of(connection: AnyConnection) -> Desk:
    return cast("Desk", connection.app.state.desk)


def visit_of(connection: AnyConnection) -> Visit | None:
    """The visit, if somebody is signed in."""
    return cast("Visit | None", connection.scope.get("auth"))


def provide_visit(request: AnyRequest) -> Visit:
    return cast("Visit", request.auth)


DEPENDENCIES = {"visit": Provide(provide_visit, sync_to_thread=False)}


def address_of(connection: AnyConnection) -> str | None:
    """The address of the socket; headers about it can be written by anybody."""
    host = connection.client.host if connection.client else ""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def request_id(connection: AnyConnection) -> str:
    """The id of this request, for the audit log and for people to quote."""
    return id_of(connection.scope)


def id_of(scope: Scope | HTTPScope) -> str:
    """The same, for whoever has the scope only."""
    known: str = scope["state"].setdefault("request_id", secrets.token_hex(16))
    return known


def _digest(token: str, form: dict[str, str]) -> bytes:
    """Tells one form from another; keyed, so that the catalog does not help to guess at it."""
    digest = hashlib.blake2b(digest_size=32, key=token.encode()[:64])
    for name, value in sorted(form.items()):
        digest.update(f"{name}={value}\0".encode())
    return digest.digest()
