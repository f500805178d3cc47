"""Bad days of RDS: what moto, which makes every instance available at once, does not have."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from moto.backends import get_backend

from control_plane.adapters.providers.rds import RdsProvider
from control_plane.domain.providers import instance_name

REGION = "eu-west-1"
ACCOUNT = "123456789012"
_NOWHERE = "https://nowhere.example/"


def moto_instance(key: UUID) -> Any:
    """The instance of this server as moto keeps it; its ``status`` may be written."""
    return get_backend("rds")[ACCOUNT][REGION].databases[instance_name(key)]


class Refusals:
    """Answers the next requests for an action as RDS would on a bad day."""

    def __init__(self, rds: RdsProvider, action: str, status: int, code: str, times: int) -> None:
        self.asked = 0
        self._answer, self._times = (status, code), times
        events: Any = rds.client.meta.events
        events.register_first(f"before-send.rds.{action}", self._refuse)

    def _refuse(self, request: Any, **_: Any) -> AWSResponse | None:
        self.asked += 1
        if self.asked > self._times:
            return None
        status, code = self._answer
        request.url = _NOWHERE  # moto is asked as well, and must not do it
        body = (
            "<ErrorResponse><Error><Type>Sender</Type>"
            f"<Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
        )
        return AWSResponse(request.url, status, HTTPHeaders(), _Raw(body.encode()))


class _Raw:
    """The body of an answer, as botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body
