"""Announcing the sources that any-source interest meets, without letting a hostile relay drown the agent in them."""

from __future__ import annotations

from typing import Final

_REMEMBERED: Final = 4096
_PER_SECOND: Final = 200.0
_BURST: Final = 400.0
_AGAIN_AFTER: Final = 1.0


class SourceAnnouncer:
    """Decides which packets of unknown sources are announced.

    Each (channel, tunnel) is announced at most once a second, and all together at most 200 times a second. Remembers
    at most 4096 of them; a spray of forged sources costs the tokens of a bucket, and no memory beyond that.
    """

    def __init__(self) -> None:
        self._announced: dict[tuple[bytes, str], float] = {}
        self._tokens = _BURST
        self._filled = 0.0

    def admit(self, channel: bytes, tunnel: str, now: float) -> bool:
        """Whether to announce a packet of `channel` (source and group octets) that came through `tunnel` at `now`."""
        key = (channel, tunnel)
        last = self._announced.get(key)
        if last is not None and now < last + _AGAIN_AFTER:
            return False
        self._tokens = min(_BURST, self._tokens + (now - self._filled) * _PER_SECOND)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self._announced.pop(key, None)
        if len(self._announced) >= _REMEMBERED:
            del self._announced[next(iter(self._announced))]
        self._announced[key] = now
        return True
