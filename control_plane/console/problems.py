"""Errors as pages: what happened, what to do next, and the id to quote (S-30)."""

from http import HTTPStatus
from typing import Any

import structlog
from litestar import Response
from litestar.exceptions import HTTPException

from control_plane.console.access import CameFromElsewhere, SignInRequired, to_sign_in
from control_plane.console.rendering import page
from control_plane.console.visits import AnyRequest, request_id
from control_plane.domain.errors import TenantryError
from control_plane.domain.statuses import status_of

_log = structlog.get_logger(__name__)
_TITLES = {
    400: "The request cannot be read",
    401: "Sign in again",
    403: "Not for you to do",
    404: "There is nothing here",
    405: "This page does not take that",
    409: "Not now",
    413: "That is too large",
    422: "This cannot be meant",
    429: "Too often",
    503: "Something does not answer",
}
_NEXT = {
    403: "Ask somebody who manages people for the role, or go back.",
    404: "It may have been deleted, or it is not for you to see. Go back to the list.",
    409: "Look at the present state, and try again when it allows this.",
    429: "Wait a little, then try again.",
    503: "Nothing was changed. Try again in a few seconds; if it stays, look at ./dev status or at "
    "the health of the deployment.",
}
_OURS = "Something went wrong on our side. Nothing more is known to this page; the log has it."


class Throttled(Exception):
    """Somebody asks too often."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many attempts; try again in {seconds} s")
        self.seconds = seconds


def of_tenantry(request: AnyRequest, error: TenantryError) -> Response[str]:
    """The page of one of our errors."""
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return of_crash(request, error)
    return problem_page(request, status, error.message)


def of_http(request: AnyRequest, error: HTTPException) -> Response[str]:
    """The page of one of the framework's errors."""
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return of_crash(request, error)
    known = {404: f"There is no page {request.url.path}."}
    return problem_page(request, error.status_code, known.get(error.status_code, ""))


def of_throttled(request: AnyRequest, error: Throttled) -> Response[str]:
    """The page for somebody who asks too often."""
    answer = problem_page(request, 429, f"{str(error).capitalize()}.")
    answer.headers["Retry-After"] = str(error.seconds)
    return answer


def of_crash(request: AnyRequest, error: Exception) -> Response[str]:
    """Last resort: the log gets everything, the person an id to quote."""
    _log.error("page_crashed", exc_info=error)
    return problem_page(request, 500, _OURS)


def elsewhere(request: AnyRequest, error: CameFromElsewhere) -> Response[str]:
    """A page that asks for itself again, now from here, so that the browser shows its cookie."""
    del error
    query = f"?{request.url.query}" if request.url.query else ""
    return page(request, "elsewhere.html", path=request.url.path + query)


def problem_page(request: AnyRequest, status: int, message: str) -> Response[str]:
    """What happened, and what to do next."""
    return page(
        request,
        "problem.html",
        status,
        status=status,
        title=_TITLES.get(status, "Something went wrong"),
        message=message,
        hint=_NEXT.get(status, ""),
        reference=request_id(request),
        part="HX-Request" in request.headers,
    )


HANDLERS: dict[Any, Any] = {
    SignInRequired: to_sign_in,
    CameFromElsewhere: elsewhere,
    Throttled: of_throttled,
    TenantryError: of_tenantry,
    HTTPException: of_http,
    Exception: of_crash,
}
