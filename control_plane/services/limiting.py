"""How often somebody may ask: token buckets in this process.

In memory on purpose: requests are accepted while Redis is away.
"""

import math
import time
from collections.abc import Callable, Hashable

import msgspec

_MOST_BUCKETS = 10_000


class _Bucket(msgspec.Struct):
    tokens: float
    filled_at: float


class Limiter:
    """At most ``per_minute`` uses of each key in a burst, refilled evenly over the minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(max(per_minute, 1))
        self._per_second = self._capacity / 60.0
        self._clock = clock
        self._buckets: dict[Hashable, _Bucket] = {}

    def take(self, key: Hashable) -> int | None:
        """Count one use. ``None`` when it is allowed, else whole seconds until the next one is."""
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[key] = _Bucket(self._capacity, now)
        earned = (now - bucket.filled_at) * self._per_second
        bucket.tokens = min(self._capacity, bucket.tokens + earned)
        bucket.filled_at = now
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return None
        return max(1, math.ceil((1.0 - bucket.tokens) / self._per_second))

    def _make_room(self, now: float) -> None:
        """Forget callers whose buckets are full again: a new bucket would say the same."""
        if len(self._buckets) < _MOST_BUCKETS:
            return
        self._buckets = {
            key: bucket
            for key, bucket in self._buckets.items()
            if bucket.tokens + (now - bucket.filled_at) * self._per_second < self._capacity
        }
