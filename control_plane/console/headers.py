"""Headers of every answer: nothing from elsewhere runs, frames or is remembered."""

import structlog
from litestar.datastructures import MutableScopeHeaders
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.console.visits import id_of

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STATIC = "/console/static/"


async def add_headers(message: Message, scope: Scope) -> None:
    """A ``before_send`` hook: every answer carries them, refusals by the router too."""
    if message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders.from_message(message)
    for name, value in _HEADERS.items():
        headers[name] = value
    headers["X-Request-Id"] = id_of(scope)
    if scope["litestar_app"].state.desk.secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"
    if not scope["path"].startswith(_STATIC):
        headers["Cache-Control"] = "no-store"


class BindRequestId(ASGIMiddleware):
    """Puts the id, method and path into every log line of the request."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            request_id=id_of(scope), method=scope.get("method"), path=scope["path"]
        )
        await next_app(scope, receive, send)
