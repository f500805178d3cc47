"""Lengths of time as a person says them."""

import datetime as dt

_UNITS = ((86400, "d", 2), (3600, "h", 2), (60, "min", 2), (1, "s", 0))
_SHORT_SECONDS = 10


def span_words(span: dt.timedelta | float) -> str:
    """The largest unit of which there are two; tenths only of a few seconds."""
    seconds = span.total_seconds() if isinstance(span, dt.timedelta) else float(span)
    if 0 < seconds < _SHORT_SECONDS:
        return f"{seconds:.1f} s"
    for size, unit, least in _UNITS:
        if seconds >= size * least:
            return f"{seconds // size:.0f} {unit}"
    return "0 s"
