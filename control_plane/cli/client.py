"""The HTTP API as the CLI sees it: documents in, documents out, problems raised."""

import json
import ssl
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, cast

from control_plane.cli.endpoint import Endpoint, find_endpoint, is_loopback
from control_plane.cli.paths import path
from control_plane.cli.problems import Exit, Json, Problem, problem, say, unreachable
from control_plane.cli.sse import event_data
from control_plane.config import ClientSettings

# httpx imports its own command line with rich and pygments when it can, which takes longer than
# everything else we start; without that module it does as if its "cli" extra were missing.
cast("dict[str, ModuleType | None]", sys.modules).setdefault("httpx._main", None)
import httpx  # noqa: E402 - only after the line above

PAGE = 200
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
_PATIENT_SECONDS = 900.0
# The API sends a comment every 15 s on a stream that has nothing to say.
_SILENCE_SECONDS = 20.0
_RETRY_PAUSES = (0.2, 0.6)
_TIMEOUT = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
_PATIENT_TIMEOUT = httpx.Timeout(_PATIENT_SECONDS, connect=_CONNECT_SECONDS)
_STREAM_TIMEOUT = httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)

Query = Mapping[str, str | int | None]


def open_api() -> "Api":
    """The API this environment names.

    Raises:
        Problem: nothing names an API, or there is no key for it.
    """
    endpoint = find_endpoint(ClientSettings.from_environment())
    if not endpoint.secure and not endpoint.loopback:
        say(
            f"warning: {endpoint.url} is not encrypted; your key and every DSN "
            "can be read on the way: use https"
        )
    return Api(endpoint)


class Api:
    """One endpoint and one key. Every method raises ``Problem`` for what is not a success."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client = httpx.Client(
            base_url=endpoint.url,
            headers={
                "Authorization": f"Bearer {endpoint.token.reveal()}",
                "Accept": "application/json, application/problem+json",
                "User-Agent": "tenantry-cli",
            },
            timeout=_TIMEOUT,
            # A proxy named by the environment cannot reach our own loopback.
            trust_env=not endpoint.loopback,
            # Reading the bundle of trusted roots takes 80 ms, which plain HTTP does not need.
            verify=True if endpoint.secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    @property
    def url(self) -> str:
        """Where the API is."""
        return self._endpoint.url

    def close(self) -> None:
        self._client.close()

    def get(self, target: str, query: Query | None = None) -> Json:
        """One document."""
        return self._document(self._request("GET", target, query=query))

    def patiently(self) -> "Api":
        """The same API, for questions whose answer takes minutes."""
        self._client.timeout = _PATIENT_TIMEOUT
        return self

    def items(
        self, target: str, query: Query | None = None, *, most: int | None = None
    ) -> list[Json]:
        """The items of a list, page after page, at most ``most`` of them."""
        found: list[Json] = []
        cursor: str | None = None
        while most is None or len(found) < most:
            limit = PAGE if most is None else min(PAGE, most - len(found))
            page = self.get(target, {**(query or {}), "limit": limit, "cursor": cursor})
            found.extend(page["items"])
            cursor = page.get("next_cursor")
            if not cursor or not page["items"]:
                break
        return found

    def change(
        self, method: str, target: str, body: Json | None = None, query: Query | None = None
    ) -> Json:
        """Ask for a change, once, however often the connection breaks; ``{}`` when 204."""
        key = str(uuid.uuid4())
        return self._document(self._request(method, target, body=body, query=query, key=key))

    def stream(self, operation_id: str) -> Iterator[Json]:
        """The operation each time it changes, from its present state on, until the stream ends."""
        events = path("operations", operation_id, "events")
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        try:
            with self._client.stream(
                "GET", events, headers=headers, timeout=_STREAM_TIMEOUT
            ) as got:
                if got.status_code != httpx.codes.OK:
                    got.read()
                    raise _refusal(got)
                for data in event_data(got.iter_bytes()):
                    yield json.loads(data)
        except (httpx.TransportError, ValueError) as error:
            raise self._unreachable(error) from error

    def _request(
        self,
        method: str,
        target: str,
        *,
        query: Query | None = None,
        body: Json | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        """Send, and send again when the connection broke: a change carries its key."""
        request = self._client.build_request(
            method,
            target,
            params={name: value for name, value in (query or {}).items() if value is not None},
            json=body,
            headers={"Idempotency-Key": key} if key else None,
        )
        for pause in (*_RETRY_PAUSES, None):
            try:
                return self._client.send(request)
            except httpx.TransportError as error:
                if pause is None or isinstance(error, httpx.ReadTimeout):
                    raise self._unreachable(error) from error
                time.sleep(pause)
        raise AssertionError("the last round returns or raises")

    def _document(self, response: httpx.Response) -> Json:
        if not response.is_success:
            raise _refusal(response)
        if response.status_code == httpx.codes.NO_CONTENT:
            return {}
        found = _json_object(response)
        if found is None:
            raise self._foreign(response)
        return found

    def _unreachable(self, error: Exception) -> Problem:
        reason = str(error) or type(error).__name__
        return unreachable(
            f"{self._endpoint.url} does not answer ({reason}); "
            "check TENANTRY_URL, or the local stack with: ./dev status"
        )

    def _foreign(self, response: httpx.Response) -> Problem:
        return problem(
            Exit.FAILED,
            "not_our_api",
            f"{response.url} answered {response.status_code} without a JSON document; "
            "check that TENANTRY_URL names a Tenantry API",
        )


def fetch(url: str) -> Iterator[bytes]:
    """What is behind a link to an object store; our key is not shown there.

    Raises:
        Problem: the store does not answer, or refuses.
    """
    try:
        with (
            httpx.Client(timeout=_TIMEOUT, trust_env=not is_loopback(url)) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as got,
        ):
            if got.status_code != httpx.codes.OK:
                detail = f"the object store answered {got.status_code} {got.reason_phrase}"
                raise problem(Exit.FAILED, "store_refused", detail)
            yield from got.iter_raw()
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise unreachable(f"the object store does not answer ({reason})") from error


def _refusal(response: httpx.Response) -> Problem:
    document = _json_object(response) or {}
    document.setdefault("status", response.status_code)
    document.setdefault("title", response.reason_phrase or "Error")
    if not document.get("detail"):
        document["detail"] = (
            f"{response.request.method} {response.url.path} answered "
            f"{response.status_code} {response.reason_phrase}"
        )
    return Problem(document)


def _json_object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        found = response.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
