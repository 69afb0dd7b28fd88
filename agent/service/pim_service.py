"""PIM of router mode: every interface with multicast routers, in both families."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from agent.net.interfaces import Interface
from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_events import AssertChanged, AssertOutcome, BootstrapReceived, DesignatedRouterChanged
from agent.protocol.upstream import NativeUpstream
from agent.service.pim_link import PimEvents, PimLink, Wishes
from agent.tree import Route, Tree

_log = logging.getLogger(__name__)

LinkKey = tuple[str, Family]


class PimService:
    """All PIM links; implements the `joiner` of native upstreams.

    Attributes:
        links: by interface and family, in configured order.
        asserts: channels whose forwarding an Assert settled, by link.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tree: Tree,
        wishes: Wishes,
        get_interface: Callable[[str], Interface | None],
        on_neighbors_changed: Callable[[], None],
    ) -> None:
        self.links: dict[LinkKey, PimLink] = {}
        self.asserts: dict[LinkKey, dict[Channel, AssertChanged]] = {}
        self._loop = loop
        self._tree = tree
        self._wishes = wishes
        self._get_interface = get_interface
        self._on_neighbors_changed = on_neighbors_changed
        self._events = PimEvents(
            self._neighbors_changed, self._designated_changed, self._assert_changed, self._bootstrap
        )
        self._joined: dict[Channel, NativeUpstream] = {}

    def configure(self, config: PimConfig | None, keys: Iterable[LinkKey]) -> None:
        """Speak PIM on exactly these interfaces; None: nowhere.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
        """

    def follow(self, name: str) -> None:
        """An interface changed."""

    def find_neighbor(self, interface: str, address: Address) -> Address | None:
        """Primary address of the neighbour that has `address` on `interface`."""

    def join(self, channel: Channel, upstream: NativeUpstream) -> None:
        """Ask a native neighbour for a channel; on link there is nobody to ask."""

    def prune(self, channel: Channel) -> None:
        """Ask for it no longer."""

    def route_changed(self, channel: Channel, before: Route | None, after: Route | None) -> None:
        """A channel is forwarded otherwise now: we can assert exactly where it goes out."""

    def wrong_interface(self, channel: Channel, interface: str) -> None:
        """A packet of a channel came in on an interface that is not its incoming one."""

    def close(self) -> None:
        """Say goodbye everywhere."""
