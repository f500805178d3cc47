"""Errors as problem documents (RFC 9457): one table from our errors to statuses."""

import re
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.plugins.problem_details import (
    ProblemDetailsConfig,
    ProblemDetailsException,
    ProblemDetailsPlugin,
)

from control_plane.api.correlation import request_id
from control_plane.api.words import PATTERN_WORDS, plain
from control_plane.domain import errors
from control_plane.domain.errors import Invalid, TenantryError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
_log = structlog.get_logger(__name__)

# Every error has the status of its nearest ancestor here; what has none is our own fault.
STATUS: dict[type[TenantryError], int] = {
    errors.Unauthenticated: 401,
    errors.Denied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.ServerRefused: 422,
    errors.CatalogUnavailable: 503,
    errors.CatalogMismatch: 503,
    errors.CatalogNotAccepted: 503,
    errors.ServerUnavailable: 503,
    errors.PoolerUnavailable: 503,
    errors.KeyUnavailable: 503,
    errors.StoreUnavailable: 503,
    TenantryError: 500,
}
# Facts of an error that a client may see; others are for the log.
_PUBLIC_FACTS = ("operation",)
_CODES = {
    400: ("malformed", "the request cannot be read; a body must be one JSON document in UTF-8"),
    404: ("not_found", "there is nothing at this path; see /schema"),
    405: ("method_not_allowed", "this path does not take this method; see the Allow header"),
    413: ("too_large", "the body is too large"),
    422: ("invalid", "the request cannot be accepted"),
    429: ("rate_limited", "too many requests"),
}
_SENT_AS = {
    "data": "body",
    "idempotency_key": "Idempotency-Key",
    "operation_state": "state",
    "target_state": "state",
    "tenant_state": "state",
}
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.+?)`")
_MISSING_FIELD = re.compile(r"Object missing required field `(.+?)`")
_WRONG_PATTERN = re.compile(r"Expected `str` matching regex (.+)", re.DOTALL)


class FieldProblem(msgspec.Struct, frozen=True):
    """What is wrong with one field of the request, and the remedy."""

    field: str
    message: str


class ProblemDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every answer that is not a success."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldProblem] = []
    operation: str | None = None


class Problem(ProblemDetailsException):
    """A problem on its way to the client."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        fields: list[FieldProblem] | None = None,
        operation: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail=detail, status_code=status, headers=headers)
        self.code = code
        self.fields = fields or []
        self.operation = operation

    def to_response(self, request: Request[Any, Any, Any]) -> Response[Any]:
        """The answer to this request."""
        document = ProblemDocument(
            type=f"urn:tenantry:problem:{self.code}",
            title=self.code.replace("_", " ").capitalize(),
            status=self.status_code,
            detail=self.detail,
            instance=request.url.path,
            code=self.code,
            request_id=request_id(request.scope),
            errors=self.fields,
            operation=self.operation,
        )
        return Response(
            document, status_code=self.status_code, headers=self.headers, media_type=MEDIA_TYPE
        )


def rate_limited(retry_after_seconds: int) -> Problem:
    """The answer to a caller that asks too often."""
    code, detail = _CODES[429]
    told = f"{detail}; try again in {retry_after_seconds} s"
    return Problem(429, code, told, headers={"Retry-After": str(retry_after_seconds)})


def from_error(error: TenantryError) -> Problem:
    """The problem document of one of our errors."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return from_crash(error)
    facts = {name: str(error.facts[name]) for name in _PUBLIC_FACTS if name in error.facts}
    return Problem(
        status,
        error.code,
        error.message,
        fields=_fields_of(error),
        operation=facts.get("operation"),
        headers=_headers(status),
    )


def from_http(error: HTTPException) -> Problem:
    """The problem document of one of the framework's errors."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ValidationException):
        return _from_validation(error)
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return from_crash(error)
    phrase = HTTPStatus(error.status_code).phrase.lower()
    code, detail = _CODES.get(error.status_code, (phrase.replace(" ", "_"), phrase))
    return Problem(error.status_code, code, detail, headers=error.headers)


def from_crash(error: Exception) -> Problem:
    """Last resort: the log gets everything, the client an id to quote (S-30)."""
    _log.error("request_crashed", exc_info=error)
    detail = "something went wrong on our side; the log has it under this request_id"
    return Problem(500, errors.InternalError.code, detail)


def plugin() -> ProblemDetailsPlugin:
    """Every error leaves as a problem document."""
    return ProblemDetailsPlugin(
        ProblemDetailsConfig(
            exception_to_problem_detail_map={
                HTTPException: from_http,
                TenantryError: from_error,
                Exception: from_crash,
            }
        )
    )


def _from_validation(error: ValidationException) -> Problem:
    listed = error.extra if isinstance(error.extra, list) else []
    fields = [_field(str(one.get("key", "data")), str(one.get("message", ""))) for one in listed]
    if not fields:
        return Problem(422, Invalid.code, error.detail)
    told = "; ".join(f"{one.field}: {one.message}" for one in fields)
    return Problem(422, Invalid.code, told, fields=fields)


def _field(key: str, message: str) -> FieldProblem:
    """Name the field that a person wrote, which is not always where the decoder stopped.

    The framework reports the parameter of the handler.
    """
    name = _SENT_AS.get(key, key)
    if found := _UNKNOWN_FIELD.search(message):
        return FieldProblem(found[1], "there is no such field")
    if found := _MISSING_FIELD.search(message):
        return FieldProblem(found[1], "is required")
    if name == "body" and message == "'data'":
        return FieldProblem("body", "a JSON object is required")
    if found := _WRONG_PATTERN.search(message):
        pattern = found[1].strip("'").replace("\\\\", "\\")
        return FieldProblem(name, PATTERN_WORDS.get(pattern, message))
    return FieldProblem(name, plain(key, message))


def _fields_of(error: TenantryError) -> list[FieldProblem]:
    listed = error.errors if isinstance(error, Invalid) else []
    return [
        FieldProblem(one.get("field") or one.get("check") or "request", one.get("message", ""))
        for one in listed
    ]


def _headers(status: int) -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="tenantry"'}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {}
