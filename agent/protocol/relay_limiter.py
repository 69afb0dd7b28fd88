"""Token buckets: how often a relay answers what it cannot authenticate."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

from agent.protocol.channels import Address

Site: TypeAlias = tuple[int, int]
"""IP version and prefix: a whole IPv4 address, or the /64 a host can choose its IPv6 addresses from."""


@dataclass(slots=True)
class Bucket:
    """A token bucket; full when made.

    Attributes:
        tokens: what is left.
        updated: when that was so.
    """

    tokens: float
    updated: float

    def take(self, rate: float, burst: float, now: float) -> bool:
        """Take a token if there is one, after filling up at `rate` tokens a second to at most `burst`."""
        self.tokens = min(burst, self.tokens + max(now - self.updated, 0.0) * rate)
        self.updated = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class AddressLimiter:
    """A bucket per gateway address, the longest unused forgotten first when there are too many.

    A flood from more addresses than are remembered is not held back here, and cannot be by address.
    """

    def __init__(self, rate: float, burst: float, entries: int) -> None:
        """Make an empty limiter.

        Args:
            rate: tokens a second.
            burst: tokens at once.
            entries: addresses remembered at most.
        """
        self._rate = rate
        self._burst = burst
        self._entries = entries
        self._buckets: OrderedDict[Site, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, address: Address, now: float) -> bool:
        """Whether one more answer may go to `address`; counts it if so."""
        site = _site(address)
        bucket = self._buckets.get(site)
        if bucket is None:
            if len(self._buckets) >= self._entries:
                self._buckets.popitem(last=False)
            bucket = self._buckets[site] = Bucket(self._burst, now)
        else:
            self._buckets.move_to_end(site)
        return bucket.take(self._rate, self._burst, now)


def _site(address: Address) -> Site:
    return (4, int(address)) if address.version == 4 else (6, int(address) >> 64)
