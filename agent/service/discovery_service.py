"""Relay discovery for the sources that are wanted: asks, remembers, asks again before an answer expires."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from agent.protocol.channels import Address
from agent.protocol.discovery import Answer
from agent.service.config import Configuration


class RelayDiscovery:
    """Candidates per source. Used on the loop's thread only; nothing here raises because of the network.

    Attributes:
        counters: questions asked, answers by kind, what was refused, by reason.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        configuration: Configuration,
        on_answer: Callable[[Address], None],
    ) -> None:
        """`on_answer` is called with a source when its first answer, or another one, is there; never from `lookup`."""
        self.counters: Counter[str] = Counter()
        self._loop = loop
        self._configuration = configuration
        self._on_answer = on_answer

    @property
    def is_enabled(self) -> bool:
        """Whether any method is configured; without one `lookup` says None and asks nobody."""
        return bool(self._configuration.discovery.methods)

    def lookup(self, source: Address) -> Answer | None:
        """What is known for a source; None while nothing is, `on_answer` is called later.

        Every call is a sign of interest: a source that was looked up since it was asked about is asked about again
        before its answer expires, and the old answer goes on until there is another one. A source that is looked up no
        more is forgotten when its answer has expired.
        """
        raise NotImplementedError

    def release(self, source: Address) -> None:
        """Nobody wants this source now: it is not asked about again until it is looked up."""

    def reconfigure(self, configuration: Configuration) -> None:
        """Take another configuration; when its discovery changed, every source in use is asked about anew."""
        self._configuration = configuration

    async def close(self) -> None:
        """Stop asking; `on_answer` is not called any more."""
