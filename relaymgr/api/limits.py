"""How often somebody may try to log in."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Final

ATTEMPTS: Final = 10
"""Failures in a row before anybody has to wait."""
SECONDS_EACH: Final = 30.0
"""One more attempt is allowed after so long."""
_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class LoginLimiter:
    """A token bucket for each name and for each client address; the one that is emptier decides."""

    def __init__(
        self,
        attempts: int = ATTEMPTS,
        seconds_each: float = SECONDS_EACH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attempts = attempts
        self._seconds_each = seconds_each
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, *keys: str) -> int:
        """Count one attempt; 0 when it may be looked at, else whole seconds to wait, and then it is not counted."""
        buckets = [self._filled(key) for key in keys]
        emptiest = min(bucket.left for bucket in buckets)
        if emptiest < 1:
            return max(1, ceil((1 - emptiest) * self._seconds_each))
        for bucket in buckets:
            bucket.left -= 1
        return 0

    def succeeded(self, *keys: str) -> None:
        """The attempt was right: it does not count against its keys."""
        for key in keys:
            bucket = self._filled(key)
            bucket.left = min(float(self._attempts), bucket.left + 1)

    def _filled(self, key: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.pop(key, None) or _Bucket(float(self._attempts), now)
        bucket.left = min(float(self._attempts), bucket.left + (now - bucket.at) / self._seconds_each)
        bucket.at = now
        self._buckets[key] = bucket
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return bucket
