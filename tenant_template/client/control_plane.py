"""Asking the control plane for a tenant's DSN and keys."""

import base64
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal
from uuid import UUID

import httpx
from sqlalchemy import URL, make_url

from tenant_template.client.errors import ControlPlaneRefused, ControlPlaneUnavailable
from tenant_template.client.vault import Vault

Pool = Literal["transaction", "session"]
_log = logging.getLogger("tenantry")
_TIMEOUT_SECONDS = 10.0
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True)
class Dsn:
    """Where a tenant's database is. ``url`` shows itself without its password."""

    url: URL
    hints: Mapping[str, str]


@dataclass(frozen=True)
class ControlPlane:
    """One tenant's view of the control plane; ``token`` is an API key with the role ``app``."""

    url: str
    token: str = field(repr=False)
    tenant: str
    transport: httpx.BaseTransport | None = field(default=None, repr=False)

    def dsn(self, pool: Pool) -> Dsn:
        """The DSN of one endpoint. Every call is a line in the control plane's audit log.

        Raises:
            ControlPlaneRefused, ControlPlaneUnavailable: see there.
        """
        answer = self._post("dsn", {"pool": pool})
        return Dsn(make_url(answer["dsn"]), answer["driver_hints"])

    def vault(self) -> Vault:
        """The tenant's id and all versions of its keys.

        Raises:
            ControlPlaneRefused, ControlPlaneUnavailable: see there.
        """
        answer = self._post("field-keys", {})
        keys = {one["version"]: base64.b64decode(one["key"]) for one in answer["keys"]}
        active = next(one["version"] for one in answer["keys"] if one["state"] == "active")
        return Vault(UUID(answer["tenant_uuid"]), keys, active)

    def _post(self, what: str, body: dict[str, str]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        path = f"{self.url.rstrip('/')}/v1/tenants/{self.tenant}/{what}"
        try:
            with httpx.Client(timeout=_TIMEOUT_SECONDS, transport=self.transport) as client:
                answer = client.post(path, headers=headers, json=body)
        except httpx.HTTPError as error:
            message = f"the control plane at {self.url} does not answer: {type(error).__name__}"
            raise ControlPlaneUnavailable(message) from error
        if answer.is_success:
            return dict(answer.json())
        said = f"the control plane says {answer.status_code}: {_detail(answer)}"
        if answer.is_server_error or answer.status_code in _LATER:
            raise ControlPlaneUnavailable(said)
        raise ControlPlaneRefused(said)


class CurrentDsn:
    """The DSN that new connections use, asked for again when it is old or was refused.

    A rotation keeps the old login for a grace; asking again within it means that nobody ever
    sees the old login end. Any thread may call; one at a time asks.
    """

    def __init__(
        self,
        ask: Callable[[], Dsn],
        max_age_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._max_age = max_age_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._dsn = ask()
        self._asked_at = clock()

    @property
    def fresh(self) -> Dsn | None:
        """The DSN, if it need not be asked for again."""
        return self._dsn if self._clock() - self._asked_at < self._max_age else None

    def renewed(self) -> Dsn:
        """The DSN; the old one stays if there is no new one to be had, for it may well work."""
        with self._lock:
            if self.fresh is None:
                self._asked_at = self._clock()
                try:
                    self._dsn = self._ask()
                except (ControlPlaneRefused, ControlPlaneUnavailable) as trouble:
                    _log.warning("the DSN could not be asked for again: %s", trouble)
            return self._dsn

    def after_refusal(self, refused: Dsn) -> Dsn:
        """The DSN to try when the login of ``refused`` was refused; it may be the same.

        Raises:
            ControlPlaneRefused, ControlPlaneUnavailable: nothing newer can be had.
        """
        with self._lock:
            if self._dsn.url == refused.url:
                self._dsn = self._ask()
                self._asked_at = self._clock()
            return self._dsn


def _detail(answer: httpx.Response) -> str:
    """The problem document's own words, which hold no secret."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase
