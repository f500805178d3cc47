"""Charts of usage: what is idle is zero, the newest bucket counts for as long as it lasted."""

import datetime as dt
from uuid import UUID

import pytest

from control_plane.catalog.usage import Bucket
from control_plane.console.charts import HEIGHT, WIDTH, amount_words, charts_of
from control_plane.domain.tenants import Tenant
from control_plane.domain.usage import Grain, Usage, total
from control_plane.services.usage import TenantUsage

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


def used(
    grain: Grain, until: dt.datetime, hours: float, busy: dict[dt.datetime, float], tenant: Tenant
) -> TenantUsage:
    buckets = [Bucket(at, Usage(busy_ms=ms)) for at, ms in busy.items()]
    return TenantUsage(
        tenant=tenant,
        since=until - dt.timedelta(hours=hours),
        until=until,
        grain=grain,
        buckets=buckets,
        total=total(one.usage for one in buckets),
        of_server=Usage(busy_ms=1_000_000),
        shares={"time": 0.25, "rows_written": 0.0, "blocks_read": 0.0},
        size_bytes=None,
        sized_at=None,
        disturbance=None,
    )


@pytest.fixture(name="tenant")
def a_tenant() -> Tenant:
    return Tenant(
        id=UUID(int=1),
        slug="acme",
        name="Acme",
        tier="standard",
        region=None,
        labels={},
        state="active",
        server="pg-a",
        template="clinic",
        schema_revision="0011",
        placement_reason=None,
        cell="cell-1",
        created_at=NOON,
        activated_at=NOON,
        operation_id=None,
        operation_kind=None,
    )


def test_what_is_idle_is_drawn_as_nothing(tenant: Tenant) -> None:
    spans = {NOON - 30 * MINUTE: 120_000.0}
    busy = charts_of(used(1, NOON, 1, spans, tenant))[0]
    assert (busy.title, busy.latest, busy.most) == ("Busy sessions", "0", "2.0")
    assert busy.most_at == NOON - 30 * MINUTE
    assert busy.share == 0.25
    points = busy.line.split()
    assert points[0] == f"0.0,{HEIGHT}.0"
    assert points[-1] == f"{WIDTH}.0,{HEIGHT}.0"
    assert min(float(point.split(",")[1]) for point in points) == 0.0
    # The edges, the peak, and one idle minute on each side of it: the rest lies between equals.
    assert len(points) == 5
    assert busy.area == f"0,{HEIGHT} {busy.line} {WIDTH},{HEIGHT}"


def test_the_newest_quarter_counts_for_as_long_as_it_lasted(tenant: Tenant) -> None:
    until = NOON + 5 * MINUTE
    busy = charts_of(used(15, until, 24, {NOON: 300_000.0}, tenant))[0]
    assert busy.latest == "1.0"
    assert busy.most_at == NOON


def test_a_bucket_that_began_just_now_is_left_out(tenant: Tenant) -> None:
    until = NOON + dt.timedelta(seconds=59)
    busy = charts_of(used(1, until, 1, {NOON: 50_000.0}, tenant))[0]
    assert (busy.latest, busy.most) == ("0", "0")


def test_little_looks_like_little(tenant: Tenant) -> None:
    busy = charts_of(used(1, NOON, 1, {NOON - 30 * MINUTE: 600.0}, tenant))[0]
    lowest = min(float(point.split(",")[1]) for point in busy.line.split())
    assert lowest == pytest.approx(HEIGHT * 0.99, abs=0.1)


@pytest.mark.parametrize("grain", [1, 15, 1440])
def test_every_bucket_has_its_place(tenant: Tenant, grain: Grain) -> None:
    """Buckets are counted from the year 2000 on; none falls between two."""
    step = dt.timedelta(minutes=grain)
    origin = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    newest = origin + ((NOON - origin) // step - 1) * step
    hours = 30 * grain / 60
    busy = charts_of(used(grain, NOON + 7 * MINUTE, hours, {newest: 7e9}, tenant))[0]
    assert busy.most_at == newest
    assert busy.most == f"{7e9 / 1000 / (grain * 60):,.0f}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.0001, "<0.01"),
        (0.0234, "0.023"),
        (1.25, "1.2"),
        (9.96, "10.0"),
        (23.4, "23"),
        (2345.6, "2,346"),
    ],
)
def test_amounts_are_short(value: float, words: str) -> None:
    assert amount_words(value) == words
