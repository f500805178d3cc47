import pytest
from litestar.exceptions import (
    ClientException,
    HTTPException,
    InternalServerException,
    NotFoundException,
    ValidationException,
)

from control_plane.api.problems import from_crash, from_error, from_http, rate_limited
from control_plane.domain import errors
from control_plane.domain.errors import Invalid, TenantryError
from control_plane.domain.statuses import STATUS

SECRET = "postgresql://login:hunter2@10.0.0.1/db SELECT * FROM credentials"


def every_error() -> list[type[TenantryError]]:
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, TenantryError)
    ]
    return sorted(found, key=lambda kind: kind.__name__)


EXPECTED = {
    "CatalogMismatch": 503,
    "CatalogNotAccepted": 503,
    "CatalogUnavailable": 503,
    "Conflict": 409,
    "LegalHold": 409,
    "Denied": 403,
    "IdempotencyMismatch": 422,
    "IdentityProviderUnavailable": 503,
    "Invalid": 422,
    "LintRefused": 422,
    "KeyServiceUnavailable": 503,
    "KeyUnavailable": 503,
    "NoCapacity": 409,
    "NotFound": 404,
    "OperationInProgress": 409,
    "PoolerUnavailable": 503,
    "ServerRefused": 422,
    "ServerRejected": 422,
    "ServerUnavailable": 503,
    "SlugTaken": 409,
    "StoreUnavailable": 503,
    "Unauthenticated": 401,
    "WrongState": 409,
}


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_the_status_that_was_decided(kind: type[TenantryError]) -> None:
    problem = from_error(kind("words for a person"))
    assert problem.status_code == EXPECTED.get(kind.__name__, 500)
    if problem.status_code != 500:
        assert (problem.code, problem.detail) == (kind.code, "words for a person")


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_a_fault_of_ours_tells_nothing(kind: type[TenantryError]) -> None:
    problem = from_error(kind(SECRET))
    if problem.status_code == 500:
        assert problem.code == "internal_error"
        assert "hunter2" not in problem.detail
        assert "SELECT" not in problem.detail


def test_any_other_exception_tells_nothing() -> None:
    for problem in (from_crash(RuntimeError(SECRET)), from_http(InternalServerException(SECRET))):
        assert (problem.status_code, problem.code) == (500, "internal_error")
        assert "hunter2" not in problem.detail


def test_only_public_facts_leave() -> None:
    found = from_error(errors.OperationInProgress("busy", operation="op_1", constraint="tenants"))
    assert found.operation == "op_1"
    assert not hasattr(found, "constraint")


def test_unavailable_says_when_to_come_back() -> None:
    assert (from_error(errors.CatalogUnavailable("away")).headers or {})["Retry-After"] == "2"
    assert (rate_limited(7).headers or {})["Retry-After"] == "7"
    assert rate_limited(7).detail.endswith("try again in 7 s")


def test_unauthenticated_names_the_scheme() -> None:
    headers = from_error(errors.Unauthenticated("no key")).headers or {}
    assert headers["WWW-Authenticate"].startswith("Bearer")


def test_fields_of_our_own_errors() -> None:
    found = from_error(Invalid("slug", [{"field": "slug", "message": "too short"}]))
    assert [(one.field, one.message) for one in found.fields] == [("slug", "too short")]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (
            {"key": "data", "message": "Object contains unknown field `nmae`", "source": "body"},
            ("nmae", "there is no such field"),
        ),
        (
            {"key": "data", "message": "Object missing required field `name`", "source": "body"},
            ("name", "is required"),
        ),
        ({"key": "data", "message": "'data'", "source": "body"}, ("body", "a JSON object is req")),
        (
            {
                "key": "region",
                "message": "Expected `str` matching regex '^[a-z0-9][a-z0-9-]{0,62}$'",
                "source": "body",
            },
            ("region", "use 1 to 63 lower-case letters"),
        ),
        (
            {
                "key": "name",
                "message": "Expected `str` matching regex '^[^\\\\x00-\\\\x1f\\\\x7f]*$'",
                "source": "body",
            },
            ("name", "use printable characters only"),
        ),
        (
            {"key": "limit", "message": "Expected `int` >= 1", "source": "query"},
            ("limit", "use a whole number of at least 1"),
        ),
        (
            {"key": "name", "message": "Expected `str` of length >= 1", "source": "body"},
            ("name", "must not be empty"),
        ),
        (
            {"key": "labels", "message": "Expected `object` of length <= 50", "source": "body"},
            ("labels", "use at most 50 entries"),
        ),
        (
            {"key": "data", "message": "Expected `object`, got `array`", "source": "body"},
            ("body", "a JSON object is required, not a list"),
        ),
        (
            {"key": "region", "message": "Expected `str | null`, got `int`", "source": "body"},
            ("region", "text is required, not a whole number"),
        ),
        (
            {"key": "tier", "message": "Invalid enum value 'gold'", "source": "body"},
            ("tier", "'gold' is none of: standard, enterprise, dedicated"),
        ),
        (
            {"key": "operation_state", "message": "Invalid enum value 'x'", "source": "query"},
            ("state", "'x' is none of: pending, running, "),
        ),
        (
            {"key": "since", "message": "Invalid RFC3339 encoded datetime", "source": "query"},
            ("since", "use a time such as 2026-"),
        ),
        (
            {"key": "name", "message": "words of a later version", "source": "body"},
            ("name", "words of a later version"),
        ),
        (
            {
                "key": "idempotency_key",
                "message": "Expected `str` matching regex '^[!-~]{1,200}$'",
                "source": "header",
            },
            ("Idempotency-Key", "use 1 to 200 visible"),
        ),
    ],
)
def test_validation_names_the_field_that_was_sent(
    extra: dict[str, str], expected: tuple[str, str]
) -> None:
    problem = from_http(ValidationException(detail="http://secret", extra=[extra]))
    assert problem.status_code == 422
    (found,) = problem.fields
    assert found.field == expected[0]
    assert found.message.startswith(expected[1])
    assert "secret" not in problem.detail


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFoundException(), 404, "not_found"),
        (ClientException("JSON is malformed: hunter2"), 400, "malformed"),
        (HTTPException(status_code=413), 413, "too_large"),
        (HTTPException(status_code=418), 418, "i'm_a_teapot"),
    ],
)
def test_the_frameworks_errors(error: HTTPException, status: int, code: str) -> None:
    problem = from_http(error)
    assert (problem.status_code, problem.code) == (status, code)
    assert "hunter2" not in problem.detail


def test_the_table_holds_no_error_twice() -> None:
    """An entry that repeats what its ancestor says would hide a decision."""
    for kind, status in STATUS.items():
        ancestors = [STATUS[parent] for parent in kind.__mro__[1:] if parent in STATUS]
        assert not ancestors or ancestors[0] != status, kind
