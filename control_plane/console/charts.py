"""What a tenant used over time, as small charts: points of SVG, and the same in words."""

import datetime as dt
from collections.abc import Callable, Sequence

import msgspec

from control_plane.domain.usage import Usage
from control_plane.services.usage import TenantUsage

WIDTH, HEIGHT = 320, 64
# What is looked back at: hours, and how a person says them.
RANGES = (
    (1, "1 hour"),
    (6, "6 hours"),
    (24, "24 hours"),
    (7 * 24, "7 days"),
    (90 * 24, "90 days"),
    (365 * 24, "1 year"),
)
HOURS = 6
_MS = 1000.0
_MINUTE = 60.0
_TENS, _UNITS, _LEAST = 10, 1, 0.01


class _Measure(msgspec.Struct, frozen=True):
    """One chart: ``value`` of a bucket that lasted so many seconds.

    ``scale`` is the least height of the chart: what is less than that looks like little.
    """

    title: str
    value: Callable[[Usage, float], float]
    scale: float
    share: str | None = None


_MEASURES = (
    _Measure("Busy sessions", lambda used, s: used.busy_ms / _MS / s, 1.0, "time"),
    _Measure("Transactions a second", lambda used, s: used.transactions / s, 10.0),
    _Measure("Rows written a second", lambda used, s: used.rows_written / s, 100.0, "rows_written"),
    _Measure("Blocks read a second", lambda used, s: used.blocks_read / s, 100.0, "blocks_read"),
    _Measure(
        "Wait for a pool, ms",
        lambda used, _: used.pool_wait_ms / max(1, used.pooled_transactions),
        10.0,
    ),
    _Measure("Connections, the most at once", lambda used, _: float(used.connections), 5.0),
)


class Chart(msgspec.Struct, frozen=True):
    """One resource over time. ``share`` of the server's use is from 0 to 1, if it is known."""

    title: str
    line: str
    area: str
    latest: str
    most: str
    most_at: dt.datetime
    share: float | None


def charts_of(used: TenantUsage) -> list[Chart]:
    """The charts of a tenant's usage; none while nothing of that time is over."""
    spans = _spans(used)
    return [_chart(measure, spans, used) for measure in _MEASURES] if spans else []


def amount_words(value: float) -> str:
    """A number as short as it can be read: 2,345, then 2.3, then 0.023."""
    if value >= _TENS or value == 0:
        return f"{value:,.0f}"
    if value < _LEAST:
        return f"<{_LEAST}"
    return f"{value:.1f}" if value >= _UNITS else f"{value:.2g}"


def _spans(used: TenantUsage) -> list[tuple[dt.datetime, float, Usage]]:
    """Every bucket with its seconds, idle ones too.

    The newest one lasts until now, and is left out before a minute of it is over.
    """
    step = dt.timedelta(minutes=used.grain)
    known = {one.at: one.usage for one in used.buckets}
    at = _first(used.since, step)
    spans = []
    while (seconds := (min(used.until, at + step) - at).total_seconds()) >= _MINUTE:
        spans.append((at, seconds, known.get(at, Usage())))
        at += step
    return spans


def _first(since: dt.datetime, step: dt.timedelta) -> dt.datetime:
    """The first bucket that begins within the time; buckets are counted from 2000 on, in UTC."""
    origin = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    return origin - ((origin - since) // step) * step


def _chart(
    measure: _Measure, spans: Sequence[tuple[dt.datetime, float, Usage]], used: TenantUsage
) -> Chart:
    values = [measure.value(usage, seconds) for _, seconds, usage in spans]
    most = max(values)
    line = _points(values, max(most, measure.scale))
    return Chart(
        title=measure.title,
        line=" ".join(line),
        area=" ".join((f"0,{HEIGHT}", *line, f"{WIDTH},{HEIGHT}")),
        latest=amount_words(values[-1]),
        most=amount_words(most),
        most_at=spans[values.index(most)][0],
        share=used.shares[measure.share] if measure.share else None,
    )


def _points(values: Sequence[float], top: float) -> list[str]:
    """The line from the left to the right edge; what lies between two equals is left out."""
    if len(values) == 1:
        values = (values[0], values[0])
    step = WIDTH / (len(values) - 1)
    last = len(values) - 1
    return [
        f"{n * step:.1f},{HEIGHT * (1 - value / top):.1f}"
        for n, value in enumerate(values)
        if n in (0, last) or not values[n - 1] == value == values[n + 1]
    ]
