"""What boto3 raises and S3 answers, as our errors: whether trying again can help, and why not."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import urllib3.exceptions
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectionError,  # noqa: A004 botocore's own
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from control_plane.domain.errors import (
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    TenantryError,
)

_LONGEST_MESSAGE = 300
_PASSING = (
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,
    CredentialRetrievalError,
    MetadataRetrievalError,
    ChecksumError,
    FlexibleChecksumError,
    urllib3.exceptions.HTTPError,
)
_MISSING = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}
# Those of these that S3 sends with a status below 500, or inside of a 200.
_BUSY_OR_DAMAGED_ON_THE_WAY = {
    "BadDigest",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what boto3 raises into our errors; ``what`` was being done begins their message."""
    try:
        yield
    except ClientError as error:
        raise _answered(error.response, what) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StoreRefused(
            f"{what}: no credentials were found; set TENANTRY_S3_CREDENTIALS_FILE, or give this "
            "machine a role"
        ) from error
    except _PASSING as error:
        if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise StoreRefused(f"{what}: {_one_line(str(error))}") from error
        raise StoreUnavailable(f"{what}: {_one_line(str(error))}") from error
    except BotoCoreError as error:
        raise StoreRefused(f"{what}: {_one_line(str(error))}") from error


def _answered(response: Mapping[str, Any], what: str) -> TenantryError:
    error = response.get("Error", {})
    code = str(error.get("Code", "unknown"))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    shown = f" ({status})" if status else ""
    said = f"{what}: the store answers {code}{shown}: {_one_line(error.get('Message', ''))}"
    if code in _CLOCK:
        said += (
            f"; its clock says {_time_of(response)} and ours is too far from that: "
            "set the clock of this machine by NTP"
        )
    return _kind(code, status)(said)


def _kind(code: str, status: int) -> type[TenantryError]:
    if code in _MISSING:
        return ObjectMissing
    if code in _BUSY_OR_DAMAGED_ON_THE_WAY or status == HTTPStatus.TOO_MANY_REQUESTS:
        return StoreUnavailable
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED:
        return StoreUnavailable
    return StoreRefused


def _time_of(response: Mapping[str, Any]) -> str:
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(response.get("Error", {}).get("ServerTime") or headers.get("date", "another time"))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_MESSAGE]
