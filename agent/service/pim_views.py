"""PIM as the API shows it: neighbours, interfaces, asserts, counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from agent.protocol.channels import Channel
from agent.protocol.pim_events import AssertOutcome
from agent.protocol.pim_neighbors import NeighborView
from agent.service.clock import Clock
from agent.service.model import (
    AssertState,
    AssertStatus,
    NeighborKind,
    NeighborStatus,
    PimStatus,
    Problem,
    Severity,
)
from agent.service.pim_link import PimLink
from agent.service.pim_service import PimService

_STATES = {AssertOutcome.WINNER: AssertState.WINNER, AssertOutcome.LOSER: AssertState.LOSER}


class PimViews:
    """Reads a PIM service; changes nothing."""

    def __init__(self, service: PimService, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    def neighbors(self) -> list[NeighborStatus]:
        """Every PIM neighbour, in the order of the interfaces."""
        return [
            self._neighbor(link, neighbor)
            for link in self._service.links.values()
            for neighbor in link.machine.neighbors()
        ]

    def interface(self, name: str) -> list[PimStatus]:
        """PIM on one interface."""
        return [
            PimStatus(
                family=int(family),
                address=link.machine.address,
                designated_router=link.machine.designated_router,
                designated=link.machine.is_designated,
                priority=self._service.config.dr_priority,
                hello_interval=self._service.config.hello_interval,
                neighbors=len(link.machine.neighbors()),
                channels=link.machine.channel_count,
                sent=link.link.counters.sent,
                received=dict(link.machine.received),
                refused=dict(link.machine.refused),
            )
            for (interface, family), link in self._service.links.items()
            if interface == name
        ]

    def asserts(self, channel: Channel) -> list[AssertStatus]:
        """Links on which it is settled who forwards exactly this channel."""
        return [
            AssertStatus(interface=event_on, state=_STATES[event.outcome], winner=event.winner)
            for event_on, event in self._service.asserts.get(channel, {}).items()
        ]

    def control(self) -> dict[str, int]:
        """Counters of all links and of the rendezvous point, summed."""
        counts: Counter[str] = Counter(self._service.counts)
        for link in self._service.links.values():
            counts.update({f"received_{kind}": count for kind, count in link.machine.received.items()})
            counts.update({f"refused_{reason}": count for reason, count in link.machine.refused.items()})
            counts["sent"] += link.link.counters.sent
            counts["send_errors"] += link.link.counters.send_errors
            counts["receive_overflows"] += link.link.overflows or 0
        point = self._service.rendezvous
        if point is not None:
            counts.update({f"received_{kind}": count for kind, count in point.received.items()})
            for refused in (point.refused, point.machine.refused):
                counts.update({f"refused_{reason}": count for reason, count in refused.items()})
            counts["sent"] += sum(point.sent.values())
        return dict(counts)

    def problems(self, native: tuple[str, ...], frr: str | None) -> Iterator[Problem]:
        """What keeps PIM from doing its work.

        Args:
            native: interfaces that need a neighbour.
            frr: the interface FRR has to be a neighbour on, None in mode `router`.
        """
        for name in native:
            if self._is_alone(name):
                yield Problem(
                    code="no_pim_neighbor",
                    severity=Severity.WARNING,
                    message=f"{name} is in gateway.native but no PIM neighbour is heard there: no source beyond it is "
                    "native; check PIM on the router there.",
                    subject=name,
                )
        if frr is not None and self._is_alone(frr):
            yield Problem(
                code="no_pim_neighbor",
                severity=Severity.WARNING,
                message=f"FRR is not heard on {frr} and asks for nothing; `amt-agent frr-config` prints what to tell "
                "it, `amt-agent doctor` what is missing. With an IGMP proxy instead set pim.enabled = false.",
                subject=frr,
            )

    def _is_alone(self, name: str) -> bool:
        """Whether PIM is spoken on an interface and nobody answers."""
        here = [link for (interface, _), link in self._service.links.items() if interface == name]
        return any(link.machine.address for link in here) and not any(link.machine.neighbors() for link in here)

    def _neighbor(self, link: PimLink, neighbor: NeighborView) -> NeighborStatus:
        left = None if neighbor.expires is None else max(0.0, neighbor.expires - link.now)
        return NeighborStatus(
            kind=NeighborKind.PIM,
            interface=link.interface,
            address=neighbor.address,
            expires_in=left,
            uptime=self._clock.age(neighbor.since),
            designated=neighbor.address == link.machine.designated_router,
            priority=neighbor.dr_priority,
            generation_id=neighbor.generation_id,
            secondary_addresses=list(neighbor.secondaries),
        )
