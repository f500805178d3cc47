"""Who may see and do what: session, form token and role, in this order, for every page.

Default deny: a page without ``opt`` from ``needs``, ``SIGNED_IN`` or ``OPEN`` is refused at start.
"""

import hmac
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import structlog
from litestar import Litestar, Request, Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.response import Redirect
from litestar.routes import HTTPRoute
from litestar.types import Scope

from control_plane.catalog.audit import Caller
from control_plane.console.cookies import session_token
from control_plane.console.visits import (
    AnyConnection,
    AnyRequest,
    Visit,
    address_of,
    desk_of,
    request_id,
    visit_of,
)
from control_plane.domain.errors import Denied, TenantryError
from control_plane.domain.keys import PERMISSIONS
from control_plane.services.audit import record_denial
from control_plane.services.sign_in import find_session

SIGN_IN = "/console/sign-in"
FORM_TOKEN = "csrf_token"  # noqa: S105 - the name of a field
TOKEN_HEADER = "X-CSRF-Token"  # noqa: S105 - the name of a header
# Neither session nor role: the pages on which one signs in.
OPEN: dict[str, Any] = {"permission": None, "open": True}
# A session and whatever roles.
SIGNED_IN: dict[str, Any] = {"permission": None}
_READ = frozenset({"GET", "HEAD", "OPTIONS"})
_log = structlog.get_logger(__name__)


class SignInRequired(Exception):
    """Nobody is signed in; the page is shown after signing in."""


class CameFromElsewhere(Exception):
    """Another site led here, so that the browser kept the cookie to itself."""


def needs(operation_id: str) -> dict[str, Any]:
    """The ``opt`` of a page that does or shows what this operation of the API does.

    Raises:
        KeyError: there is no such operation in ``PERMISSIONS``.
    """
    _ = PERMISSIONS[operation_id]
    return {"permission": operation_id}


def require_decisions(app: Litestar) -> None:
    """Refuse pages that nobody decided about.

    Raises:
        RuntimeError: one of them has no ``permission`` in its ``opt``.
    """
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            if not _automatic(handler) and "permission" not in handler.opt:
                raise RuntimeError(f"{route.path}: {handler} does not say who may see it")


class SessionAuthentication(AbstractAuthenticationMiddleware):
    """The session of the cookie, looked up on every request so that disabling is at once."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        desk, token = desk_of(connection), session_token(connection)
        if token is None:
            return AuthenticationResult(user=None, auth=None)
        async with desk.ports.catalog.connection() as db:
            session = await find_session(db, token)
        if session is None:
            return AuthenticationResult(user=None, auth=None)
        principal = session.person.principal
        caller = Caller(principal, address_of(connection), request_id(connection))
        structlog.contextvars.bind_contextvars(person=principal.name)
        return AuthenticationResult(user=principal, auth=Visit(desk, caller, session, token))


def require_session(connection: AnyConnection, handler: BaseRouteHandler) -> None:
    """A guard: somebody is signed in, unless the page is open.

    Raises:
        SignInRequired: nobody is.
        CameFromElsewhere: perhaps somebody is; the browser will say so when it asks again.
    """
    if handler.opt.get("open") or visit_of(connection) is not None:
        return
    if connection.headers.get("Sec-Fetch-Site") == "cross-site" and _reads(connection):
        raise CameFromElsewhere
    raise SignInRequired


async def check_form(connection: AnyConnection, handler: BaseRouteHandler) -> None:
    """A guard: what changes something was sent by one of our own pages to this session.

    Raises:
        Denied: it came from another site, or its token is not the session's.
    """
    if _reads(connection) or not isinstance(connection, Request):
        return
    if not _same_origin(connection):
        raise Denied("this form was sent from another site; open the page here and try again")
    visit = visit_of(connection)
    if visit is None or handler.opt.get("open"):
        return
    shown = connection.headers.get(TOKEN_HEADER) or (await connection.form()).get(FORM_TOKEN)
    if not hmac.compare_digest(str(shown or "").encode(), visit.session.csrf_token.encode()):
        raise Denied("this form is out of date; go back, reload the page and try again")


def check_role(connection: AnyConnection, handler: BaseRouteHandler) -> None:
    """A guard: the row of the page's operation in ``PERMISSIONS`` holds one of the person's roles.

    Raises:
        Denied: it does not.
    """
    operation_id = handler.opt.get("permission")
    visit = visit_of(connection)
    if operation_id is None or visit is None or visit.may(operation_id):
        return
    needed = " or ".join(sorted(PERMISSIONS[operation_id]))
    raise Denied(f"this needs the role {needed}, which you have not got")


async def audit_refusal(error: Exception, scope: Scope) -> None:
    """An ``after_exception`` hook: a refusal to a known person leaves exactly one audit row."""
    visit = scope.get("auth")
    if not isinstance(visit, Visit) or not isinstance(error, Denied):
        return
    handler = scope["route_handler"]
    try:
        await record_denial(
            visit.ports,
            visit.caller,
            action=str(handler.opt.get("permission") or "console"),
            subject=str(next(iter(scope["path_params"].values()), scope["path"])),
            reason=str(error),
        )
    except TenantryError as trouble:
        _log.warning("denial_not_audited", error=trouble.message)


def to_sign_in(request: AnyRequest, error: Exception) -> Response[Any]:
    """Answer a page that needs a session: sign in, then come back to it."""
    del error
    path = request.url.path
    if request.headers.get("Accept") == "text/event-stream":
        # The one answer after which a browser does not ask again.
        return Response(None, status_code=HTTPStatus.NO_CONTENT)
    if request.method == "GET" and "HX-Request" not in request.headers:
        query = f"?{request.url.query}" if request.url.query else ""
        return Redirect(f"{SIGN_IN}?next={quote(path + query)}", status_code=303)
    # A part of a page cannot show the form: htmx loads the whole page instead.
    headers = {"HX-Redirect": SIGN_IN}
    return Response("", status_code=HTTPStatus.UNAUTHORIZED, headers=headers)


def own_path(path: str | None) -> str:
    """Where to go after signing in: never to another site."""
    parts = urlsplit(path or "")
    ours = not parts.scheme and not parts.netloc and parts.path.startswith("/console/")
    return path if path and ours and "\\" not in path else "/console/"


def _same_origin(connection: AnyConnection) -> bool:
    site = connection.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = connection.headers.get("Origin")
    public = desk_of(connection).ports.settings.console.public_url
    return origin is not None and origin == (public or f"http://{connection.headers.get('Host')}")


def _reads(connection: AnyConnection) -> bool:
    return connection.scope.get("method") in _READ


def _automatic(handler: BaseRouteHandler) -> bool:
    """The framework's own OPTIONS, and static files."""
    return isinstance(handler, HTTPRouteHandler) and (
        handler.http_methods == {"OPTIONS"} or bool(handler.opt.get("static"))
    )
