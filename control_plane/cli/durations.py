"""Durations and moments as people write and read them: ``90s``, ``24h``, ``12 ms``."""

import datetime as dt
import re
from typing import Any

import click

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|d)?")
_SECOND_MS = 1000
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def seconds_of(text: str) -> float | None:
    """The seconds meant by ``90``, ``90s``, ``15m``, ``1h`` or ``2d``; ``None`` for other text."""
    found = _PATTERN.fullmatch(text.strip())
    if found is None:
        return None
    return float(found[1]) * _UNITS[found[2] or "s"]


class Duration(click.ParamType[int]):
    """An option that holds a duration, as whole seconds."""

    name = "duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click hands over the text or the default
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        seconds = seconds_of(str(value))
        if seconds is None:
            self.fail(
                f"{value!r} is not a duration; write for example 90s, 15m, 1h or 2d", param, ctx
            )
        return round(seconds)


class Since(click.ParamType[str]):
    """An option that holds a moment: a duration back from now, or an RFC 3339 time."""

    name = "duration|time"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click hands over the text or the default
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        try:
            return _rfc3339(_moment(str(value)))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither a duration such as 24h nor a time such as "
                "2026-01-31T08:00:00Z",
                param,
                ctx,
            )


def exact(seconds: float) -> str:
    """A measured time: ``12 ms``, ``1.24 s``, ``2 min 03 s``, ``1 h 02 min``."""
    milliseconds = round(seconds * 1000)
    if milliseconds < _SECOND_MS:
        return f"{milliseconds} ms"
    whole = round(seconds)
    if round(seconds, 2) < _MINUTE:
        return f"{seconds:.2f} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"


def brief(seconds: float) -> str:
    """A distance in time, roughly: ``5 s``, ``3 min``, ``2 h``, ``9 d``."""
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{int(seconds) // size} {unit}"
    return f"{int(seconds)} s"


def between(started: str | None, finished: str | None) -> float | None:
    """Seconds between two RFC 3339 times, ``None`` while one is missing."""
    if not started or not finished:
        return None
    span = dt.datetime.fromisoformat(finished) - dt.datetime.fromisoformat(started)
    return max(0.0, span.total_seconds())


def _moment(text: str) -> dt.datetime:
    seconds = seconds_of(text)
    if seconds is not None:
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _rfc3339(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
