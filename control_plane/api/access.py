"""Who may do what: key, rate, role, in this order, for every operation under /v1."""

import re
from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import Scope

from control_plane.api.context import AnyConnection, address_of, caller_of, process_of
from control_plane.api.handlers import is_options, operation_of
from control_plane.api.problems import rate_limited
from control_plane.api.words import NAME_OR_ID
from control_plane.catalog import keys as catalog_keys
from control_plane.domain.errors import Denied, Invalid, NotFound, TenantryError, Unauthenticated
from control_plane.domain.keys import PERMISSIONS, Principal, may
from control_plane.domain.names import show
from control_plane.services.audit import record_denial
from control_plane.services.keys import authenticate

_log = structlog.get_logger(__name__)
_SAFE = ("GET", "HEAD")
_BEARER = "Bearer "
_REVEALS = ("revealDsn", "revealFieldKeys")
_ID_OR_NAME = re.compile(NAME_OR_ID)


class KeyAuthentication(AbstractAuthenticationMiddleware):
    """``Authorization: Bearer tnk_…``, looked up on every request so that revoking is at once.

    Wrong keys are counted on the socket's address: who guesses too often is only told to wait.
    A right key passes whatever its neighbours do, so nobody can lock out others.
    """

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        process = process_of(connection)
        try:
            token = _token(connection)
            async with process.ports.catalog.connection() as db:
                principal = await authenticate(db, token)
                if process.limits.notes_of_use.take(principal.key_id) is None:
                    await catalog_keys.mark_used(db, principal.key_id)
        except Unauthenticated:
            address = address_of(connection)
            wait = process.limits.failed_logins.take(address)
            if wait is not None:
                raise rate_limited(wait) from None
            _log.warning("authentication_failed", address=address)
            raise
        structlog.contextvars.bind_contextvars(key=show("ky", principal.key_id))
        return AuthenticationResult(user=principal, auth=principal.key_id)


def limit_rate(connection: AnyConnection, handler: BaseRouteHandler) -> None:
    """Count this request on its key.

    Raises:
        Problem: 429 with ``Retry-After``.
    """
    if is_options(handler):
        return
    limits = process_of(connection).limits
    key_id = connection.user.key_id
    wait = limits.requests.take(key_id)
    if wait is None and operation_of(handler) in _REVEALS:
        wait = limits.reveals.take(key_id)
    if wait is not None:
        raise rate_limited(wait)


def check_permission(connection: AnyConnection, handler: BaseRouteHandler) -> None:
    """Default deny: the operation's row in ``PERMISSIONS`` must hold one of the caller's roles.

    Raises:
        Denied: it does not.
    """
    if is_options(handler):
        return
    operation = operation_of(handler)
    principal: Principal = connection.user
    if not may(principal, operation):
        needed = " or ".join(sorted(PERMISSIONS.get(operation, frozenset())))
        raise Denied(f"{operation} needs the role {needed}; this key has not got it")


async def require_accepted(connection: AnyConnection, handler: BaseRouteHandler) -> None:
    """Whoever looks may look at any catalog; what changes something wants one to work from.

    Raises:
        CatalogMismatch: its schema and this process do not go together.
        CatalogNotAccepted: it is a restored copy.
    """
    if is_options(handler) or connection.scope.get("method") in _SAFE:
        return
    process = process_of(connection)
    await process.acceptance.require(process.ports)


def check_names(connection: AnyConnection, handler: BaseRouteHandler) -> None:
    """Names in the path are well formed; query parameters are known, given once, and not null.

    The framework would take no notice of an unknown parameter, and takes the text ``null`` for
    a parameter that was left out: a filter that was meant would be silently dropped.

    Raises:
        NotFound: a name in the path cannot exist.
        Invalid: about the query; every such parameter is named.
    """
    for noun, value in connection.path_params.items():
        if not _ID_OR_NAME.fullmatch(str(value)):
            raise NotFound(f"there is no {noun} {value!r}")
    if not connection.scope["query_string"]:
        return
    query = connection.query_params
    known = handler.opt.get("query", frozenset())
    wrong = [(name, _query_problem(query.getall(name), known=name in known)) for name in query]
    errors = [{"field": name, "message": words} for name, words in wrong if words is not None]
    if errors:
        raise Invalid(f"query parameter {errors[0]['field']}: {errors[0]['message']}", errors)


def _query_problem(values: list[str], *, known: bool) -> str | None:
    if not known:
        return "there is no such query parameter"
    if len(values) > 1:
        return "give it once"
    return "leave it out instead of null" if values == ["null"] else None


async def audit_refusal(error: Exception, scope: Scope) -> None:
    """An ``after_exception`` hook: a refusal to a known caller leaves exactly one audit row.

    To a tenant's own key, other tenants do not exist; that it asked for one is recorded too.
    """
    principal = scope.get("user")
    if not isinstance(principal, Principal) or not _is_refusal(error, principal):
        return
    connection: AnyConnection = ASGIConnection(scope)
    handler = scope["route_handler"]
    named = scope["path_params"]
    try:
        await record_denial(
            process_of(connection).ports,
            caller_of(connection),
            action=operation_of(handler),
            subject=str(next(iter(named.values()), scope["path"])),
            reason=str(error),
        )
    except TenantryError as trouble:
        _log.warning("denial_not_audited", error=trouble.message)


def _is_refusal(error: Exception, principal: Principal) -> bool:
    if isinstance(error, Denied):
        return True
    return isinstance(error, NotFound) and principal.tenant_id is not None


def _token(connection: AnyConnection) -> str:
    header = connection.headers.get("Authorization")
    if header is None:
        raise Unauthenticated("send your API key: Authorization: Bearer tnk_…")
    if not header.startswith(_BEARER):
        raise Unauthenticated("the Authorization header is not of the form: Bearer tnk_…")
    return header.removeprefix(_BEARER)
