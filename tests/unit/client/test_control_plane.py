"""What the control plane answers, and when the DSN is asked for again."""

import base64
import threading
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import make_url

from tenant_template.client import ControlPlane, ControlPlaneRefused, ControlPlaneUnavailable
from tenant_template.client.control_plane import CurrentDsn, Dsn

TOKEN = "tnk_canary_token"


def plane(answer: Callable[[httpx.Request], httpx.Response]) -> ControlPlane:
    return ControlPlane("https://cp.example", TOKEN, "ada", httpx.MockTransport(answer))


def test_the_dsn_and_its_hints() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "https://cp.example/v1/tenants/ada/dsn"
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        body = {"dsn": "postgresql://l:p%40ss@h:6432/ada", "driver_hints": {"all": "x"}}
        return httpx.Response(200, json=body)

    dsn = plane(answer).dsn("session")
    assert (dsn.url.password, dsn.url.database, dsn.hints) == ("p@ss", "ada", {"all": "x"})
    assert "p@ss" not in repr(dsn)
    assert "p%40ss" not in repr(dsn)


def test_the_keys() -> None:
    tenant = uuid4()
    keys = [
        {"version": number, "key": base64.b64encode(bytes([number]) * 32).decode(), "state": state}
        for number, state in ((1, "retired"), (2, "active"))
    ]
    body = {"tenant_uuid": str(tenant), "keys": keys}
    vault = plane(lambda _: httpx.Response(200, json=body)).vault()
    assert (vault.tenant_id, vault.active, vault.versions) == (tenant, 2, (2, 1))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, ControlPlaneRefused),
        (404, ControlPlaneRefused),
        (409, ControlPlaneRefused),
        (429, ControlPlaneUnavailable),
        (503, ControlPlaneUnavailable),
    ],
)
def test_refusals_say_why(status: int, kind: type[Exception]) -> None:
    document = {"detail": "ada is suspended"}
    asked = plane(lambda _: httpx.Response(status, json=document))
    with pytest.raises(kind, match=f"{status}: ada is suspended"):
        asked.dsn("transaction")
    with pytest.raises(kind, match=str(status)):
        plane(lambda _: httpx.Response(status, text="<html>")).vault()


def test_silence_is_unavailable_and_shows_no_token() -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(TOKEN, request=request)

    with pytest.raises(ControlPlaneUnavailable, match="does not answer: ConnectError") as refused:
        plane(silent).dsn("transaction")
    assert TOKEN not in str(refused.value)
    assert TOKEN not in repr(plane(silent))


class Source:
    """A control plane whose DSN the test changes, and which may be away."""

    def __init__(self) -> None:
        self.password = "one"
        self.away: Exception | None = None
        self.asked = 0
        self.now = 0.0

    def __call__(self) -> Dsn:
        self.asked += 1
        if self.away is not None:
            raise self.away
        return Dsn(make_url(f"postgresql://l:{self.password}@h/ada"), {})

    def current(self) -> CurrentDsn:
        return CurrentDsn(self, 100, lambda: self.now)


def test_a_young_dsn_is_not_asked_for_again() -> None:
    source = Source()
    current = source.current()
    source.now = 99
    assert current.fresh is not None
    assert current.renewed() is current.fresh
    assert source.asked == 1


def test_an_old_dsn_is_asked_for_again_once() -> None:
    source = Source()
    current = source.current()
    source.now, source.password = 100, "two"
    assert current.renewed().url.password == "two"
    assert current.fresh is not None
    assert source.asked == 2


@pytest.mark.parametrize("trouble", [ControlPlaneUnavailable("x"), ControlPlaneRefused("x")])
def test_an_old_dsn_stays_while_there_is_no_new_one(trouble: Exception) -> None:
    source = Source()
    current = source.current()
    source.now, source.away = 100, trouble
    assert current.renewed().url.password == "one"
    assert current.renewed().url.password == "one"
    assert source.asked == 2


def test_a_refused_dsn_is_asked_for_by_one_of_many() -> None:
    source = Source()
    current = source.current()
    refused, source.password = current.renewed(), "two"
    found: list[Dsn] = []
    threads = [
        threading.Thread(target=lambda: found.append(current.after_refusal(refused)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {dsn.url.password for dsn in found} == {"two"}
    assert len(found) == 20
    assert source.asked == 2


def test_a_refusal_with_no_control_plane_says_so() -> None:
    source = Source()
    current = source.current()
    source.away = ControlPlaneUnavailable("away")
    with pytest.raises(ControlPlaneUnavailable):
        current.after_refusal(current.renewed())
