"""The tunnel of a gateway: the right to send Updates, our address at the relay, and the membership told through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from agent.protocol.channels import Endpoint, Family
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_exchange import Credential, ReportedAddress
from agent.protocol.gateway_updates import GatewayUpdates
from agent.protocol.wire import amt


class GatewayTunnel:
    """Messages come out, no state machine is in here.

    Attributes:
        updates: membership and its reports.
        credential: newest nonce and MACs, None when no Update may be sent.
        reported: our address as the relay told it (G flag).
        opened: whether the relay has heard an Update of us, so that the L flag does not concern us.
    """

    def __init__(self, config: GatewayConfig, fraction: Callable[[], float]) -> None:
        """`fraction` draws from 0..1."""
        self.updates: Final = GatewayUpdates(config, fraction)
        self.credential: Credential | None = None
        self.reported: ReportedAddress | None = None
        self.opened = False

    def close(self) -> None:
        """The relay is gone, or we are: nothing of this tunnel is worth keeping but what is wanted."""
        self.credential = self.reported = None
        self.opened = False
        self.updates.end()

    def learn_address(self, message: amt.MembershipQuery) -> tuple[ReportedAddress | None, Endpoint | None]:
        """Take the G fields: what was known before, and the address when it is another (RFC 7450 §5.2.3.7)."""
        old = self.reported
        if message.gateway is None or message.gateway[0].is_unspecified or not message.gateway[1]:
            return old, None
        endpoint = Endpoint(*message.gateway)
        self.reported = ReportedAddress(endpoint, message.nonce, message.response_mac)
        return old, None if old is not None and old.endpoint == endpoint else endpoint

    def renew(self, family: Family, message: amt.MembershipQuery) -> None:
        """Take nonce and MAC of a valid Query."""
        if self.credential is None or self.credential.nonce != message.nonce:
            self.credential = Credential(message.nonce, message.response_mac)
        self.credential.newest = message.response_mac
        self.credential.macs[family] = message.response_mac

    def report(self, family: Family, robustness: int, unasked: set[Family], *, anew: bool) -> None:
        """Answer a query of `family`.

        Families that were not asked for (`unasked`) may report under this MAC as well, a family that was asked for
        waits for its own query. With `anew` the relay knows nothing of us: it sees us at another address.
        """
        if anew:
            self.updates.end()
        self.updates.answer(family, robustness)
        for other in unasked:
            if not self.updates.memberships[other].listening:
                self.updates.begin(other)

    def due(self, now: float) -> Iterator[amt.Message]:
        """Updates that may leave now."""
        return self._updates(self.updates.packets(now))

    def farewell(self) -> Iterator[amt.Message]:
        """Updates that leave every group, then a Teardown where the relay told our address."""
        yield from self._updates(self.updates.farewell())
        if self.reported is not None:
            yield self.reported.teardown()

    def _updates(self, packets: Iterator[tuple[Family, bytes]]) -> Iterator[amt.Message]:
        if self.credential is None:
            return
        for family, packet in packets:
            self.opened = True
            yield amt.MembershipUpdate(self.credential.mac(family), self.credential.nonce, packet)
