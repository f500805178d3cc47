"""One id per request: taken from the caller or made here, logged, audited and sent back."""

import re
from typing import Any
from uuid import uuid4

import structlog
from litestar.datastructures import MutableScopeHeaders
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
_HEADER_BYTES = HEADER.lower().encode()
_STATE_KEY = "request_id"
# Whatever else a caller sends could forge log lines.
_ACCEPTABLE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def request_id(scope: Scope | HTTPScope) -> str:
    """The id of this request."""
    state: dict[str, Any] = scope["state"]
    known: str | None = state.get(_STATE_KEY)
    if known is None:
        known = state[_STATE_KEY] = _sent_by_caller(scope) or uuid4().hex
    return known


def _sent_by_caller(scope: Scope | HTTPScope) -> str | None:
    for name, value in scope["headers"]:
        if name == _HEADER_BYTES and _ACCEPTABLE.fullmatch(value):
            return value.decode("ascii")
    return None


async def add_request_id(message: Message, scope: Scope) -> None:
    """A ``before_send`` hook: every answer names its request, refusals by the router too."""
    if message["type"] == "http.response.start":
        MutableScopeHeaders.from_message(message)[HEADER] = request_id(scope)


class BindRequestId(ASGIMiddleware):
    """Puts the id, method and path into every log line of the request."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            request_id=request_id(scope), method=scope.get("method"), path=scope["path"]
        )
        await next_app(scope, receive, send)
