"""Which tunnels each channel goes through, and the other way round."""

from __future__ import annotations

from collections.abc import Iterable

from agent.protocol.channels import Address, Channel


class Assignments:
    """Channels, their sources and their tunnels; bounded by the channels somebody wants."""

    def __init__(self) -> None:
        self._chosen: dict[Channel, tuple[str, ...]] = {}
        self._carried: dict[str, set[Channel]] = {}
        self._sources: dict[Address, set[Channel]] = {}

    def get(self, channel: Channel) -> tuple[str, ...] | None:
        """Tunnels of a channel, None when it is not known."""
        return self._chosen.get(channel)

    def set(self, channel: Channel, names: tuple[str, ...]) -> None:
        """Have a channel go through other tunnels."""
        self._leave(channel)
        self._chosen[channel] = names
        for name in names:
            self._carried.setdefault(name, set()).add(channel)
        if channel.source is not None:
            self._sources.setdefault(channel.source, set()).add(channel)

    def remove(self, channel: Channel) -> bool:
        """Forget a channel; True when it was the last one of its source."""
        self._leave(channel)
        self._chosen.pop(channel, None)
        if channel.source is None:
            return False
        others = self._sources.get(channel.source, set())
        others.discard(channel)
        if not others:
            self._sources.pop(channel.source, None)
        return not others

    def channels(self) -> list[Channel]:
        """Every channel."""
        return list(self._chosen)

    def sources(self) -> list[Address]:
        """Every source of a channel."""
        return list(self._sources)

    def of_source(self, source: Address) -> Iterable[Channel]:
        """Channels of a source."""
        return self._sources.get(source, ())

    def through(self, tunnel: str) -> frozenset[Channel]:
        """Channels that go through a tunnel."""
        return frozenset(self._carried.get(tunnel, ()))

    def _leave(self, channel: Channel) -> None:
        for name in self._chosen.get(channel, ()):
            carried = self._carried.get(name, set())
            carried.discard(channel)
            if not carried:
                self._carried.pop(name, None)
