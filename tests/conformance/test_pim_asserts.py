"""Two borders on one LAN, packets between them: one forwards, the other takes over (RFC 7761 §4.6)."""

from __future__ import annotations

from itertools import count

import pytest
from scripted.pim_peer import Dice, both_families, group, router, shared, source

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim import PimConfig, PimInterface
from agent.protocol.pim_events import AssertChanged, AssertOutcome
from agent.protocol.pim_packet import decode_packet
from agent.protocol.wire.pim import Assert, Message

NO_INFO, WINNER, LOSER = AssertOutcome
ONE, TWO = 1, 2
HOLDTIME = 105.0


class Lan:
    """Borders that hear each other's every packet at once; the higher number wins when metrics are equal."""

    def __init__(self, family: Family = Family.IPV4) -> None:
        self.family = family
        self.now = 0.0
        self.generations = count(1)
        self.borders: dict[int, PimInterface] = {}
        self.silent: set[int] = set()
        self.settled: dict[tuple[int, Channel], AssertOutcome] = {}
        self.said: list[tuple[int, float, Message]] = []
        for number in (ONE, TWO):
            self.begin(number)
        self.pass_time(1)

    def begin(self, number: int) -> None:
        """A border starts, or starts again, with another Generation ID."""
        border = PimInterface(PimConfig(), self.family, Dice(0.0), lambda: next(self.generations))
        border.set_address(router(number, self.family), (), self.now)
        border.start(self.now)
        self.borders[number] = border

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        self.deliver()
        while True:
            due = [border.next_deadline() for border in self.speaking().values()]
            self.now = min([end, *(deadline for deadline in due if deadline is not None)])
            for border in self.speaking().values():
                border.handle_timer(self.now)
            self.deliver()
            if self.now >= end:
                return

    def speaking(self) -> dict[int, PimInterface]:
        return {number: border for number, border in self.borders.items() if number not in self.silent}

    def deliver(self) -> None:
        """Packets to everybody else, until nobody answers."""
        while spoken := [
            (number, packet) for number, border in self.speaking().items() for packet in border.packets_to_send()
        ]:
            for number, packet in spoken:
                self.said.append((number, self.now, decode_packet(packet).message))
                for other, border in self.speaking().items():
                    if other != number:
                        border.receive_packet(packet, self.now)
        for number, border in self.borders.items():
            for event in border.events():
                if isinstance(event, AssertChanged):
                    self.settled[number, event.channel] = event.outcome

    def forward(self, channel: Channel, preference: int = 200, *numbers: int) -> None:
        for number in numbers or (ONE, TWO):
            self.borders[number].set_forwarding(channel, (preference, 0), self.now)
        self.deliver()

    def traffic(self, channel: Channel) -> None:
        """A packet from each that sends, to the other."""
        for number in self.senders(channel):
            for other, border in self.speaking().items():
                if other != number:
                    border.data_received(channel, self.now)
        self.deliver()

    def senders(self, channel: Channel) -> list[int]:
        return [number for number, border in self.speaking().items() if not border.lost_assert(channel)]

    def asserts(self) -> list[tuple[int, float, Assert]]:
        """Asserts said since the last call."""
        said, self.said = self.said, []
        return [(number, when, message) for number, when, message in said if isinstance(message, Assert)]


def settled_lan(family: Family = Family.IPV4) -> tuple[Lan, Channel]:
    """Two won."""
    lan, channel = Lan(family), Channel(source(1, family), group(1, family))
    lan.forward(channel)
    lan.traffic(channel)
    return lan, channel


@both_families
def test_one_of_two_equal_borders_forwards_after_the_first_packet(family: Family) -> None:
    """RFC 7761 §4.6.1, §4.6.3: equal metrics, the higher address wins."""
    lan, channel = settled_lan(family)
    assert lan.senders(channel) == [TWO]
    assert (lan.settled[ONE, channel], lan.settled[TWO, channel]) == (LOSER, WINNER)


def test_better_metric_wins_against_the_higher_address() -> None:
    """RFC 7761 §4.6.3."""
    lan, channel = Lan(), Channel(source(1), group(1))
    lan.forward(channel, 100, ONE)
    lan.forward(channel, 200, TWO)
    lan.traffic(channel)
    assert lan.senders(channel) == [ONE]


def test_winner_says_so_again_before_the_loser_forgets() -> None:
    """RFC 7761 §4.6.1: every Assert_Time - Assert_Override_Interval, 177 s."""
    lan, channel = settled_lan()
    lan.asserts()
    lan.pass_time(600)
    said = lan.asserts()
    assert [(number, when) for number, when, _ in said] == [(TWO, 178.0), (TWO, 355.0), (TWO, 532.0)]
    assert lan.senders(channel) == [TWO]
    assert lan.settled[ONE, channel] is LOSER


@both_families
def test_loser_takes_over_when_the_winner_says_goodbye(family: Family) -> None:
    """RFC 7761 §4.6.1: the current winner's liveness ends."""
    lan, channel = settled_lan(family)
    lan.borders[TWO].stop(lan.now)
    lan.deliver()
    lan.silent.add(TWO)
    assert lan.senders(channel) == [ONE]
    assert lan.settled[ONE, channel] is NO_INFO


@both_families
def test_loser_takes_over_when_the_winner_falls_silent(family: Family) -> None:
    """RFC 7761 §4.6.1: at the end of the holdtime, not of the assert time."""
    lan, channel = settled_lan(family)
    lan.silent.add(TWO)
    lan.pass_time(HOLDTIME - 31)
    assert lan.senders(channel) == []
    lan.pass_time(32)
    assert lan.senders(channel) == [ONE]


def test_loser_takes_over_when_the_winner_restarts() -> None:
    """RFC 7761 §4.6.1: another Generation ID."""
    lan, channel = settled_lan()
    lan.begin(TWO)
    lan.pass_time(0)
    assert lan.settled[ONE, channel] is NO_INFO
    assert not lan.borders[ONE].lost_assert(channel)
    lan.forward(channel, 200, TWO)
    lan.traffic(channel)
    assert lan.senders(channel) == [TWO]


def test_winner_that_has_the_channel_no_more_hands_it_over() -> None:
    """RFC 7761 §4.6.4: AssertCancel."""
    lan, channel = settled_lan()
    lan.asserts()
    lan.borders[TWO].set_forwarding(channel, None, lan.now)
    lan.deliver()
    ((number, _, cancel),) = lan.asserts()
    assert (number, cancel.preference, cancel.metric, cancel.rpt) == (TWO, 0x7FFFFFFF, 0xFFFFFFFF, True)
    assert cancel.source == channel.source
    assert not lan.borders[ONE].lost_assert(channel)


def test_loser_whose_metric_becomes_better_takes_over() -> None:
    """RFC 7761 §4.6.1: my_metric is better than the winner's."""
    lan, channel = settled_lan()
    lan.forward(channel, 100, ONE)
    assert lan.senders(channel) == [ONE, TWO]
    lan.traffic(channel)
    assert lan.senders(channel) == [ONE]


def test_shared_trees_are_settled_apart_from_source_trees() -> None:
    """RFC 7761 §4.6.2: a router with the source's own tree beats one with the shared tree, whatever the metrics."""
    lan, any_source = Lan(), Channel(None, shared(1))
    channel = Channel(source(1), shared(1))
    lan.forward(any_source, 1, TWO)
    lan.forward(channel, 200, ONE)
    for _ in range(3):
        lan.traffic(channel)
        lan.pass_time(3)
    assert lan.senders(channel) == [ONE]
    assert not lan.borders[TWO].lost_assert(any_source)


@pytest.mark.parametrize("change", [router(9), None])
def test_border_with_another_address_settles_it_anew(change: Address | None) -> None:
    """RFC 7761 §4.3.1: goodbye from the old address, and what was won is said from the new one."""
    lan, channel = settled_lan()
    lan.borders[TWO].set_address(change, (), lan.now)
    lan.deliver()
    lan.pass_time(0)
    lan.traffic(channel)
    if change is None:
        assert not lan.borders[ONE].lost_assert(channel)
    else:
        assert lan.senders(channel) == [TWO]
