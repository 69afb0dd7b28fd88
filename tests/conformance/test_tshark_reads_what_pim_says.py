"""tshark reads whatever a PIM interface says: nothing malformed, no checksum wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted.pim_peer import (
    HIGHER,
    LOWER,
    OURS,
    both_families,
    greet,
    group,
    hear,
    interface,
    join,
    prune,
    router,
    run,
    secondary,
    shared,
    source,
)
from vectors.tshark import TSHARK, run_tshark, write_pcap

from agent.protocol.channels import Channel, Family
from agent.protocol.pim_packet import encode_packet

pytestmark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")

HELLO, JOIN_PRUNE, ASSERT = "0", "3", "5"
GOOD = "1"


def everything_said(family: Family) -> list[bytes]:
    """Packets of a life: Hellos, Joins to a neighbour, echoes, an Assert, another address, goodbye."""
    machine = interface(family)
    machine.set_address(router(OURS, family), (secondary(1, family),), 0)
    greet(machine, LOWER)
    greet(machine, HIGHER)
    packets = run(machine, 0)
    for number in range(1, 90):
        machine.join_upstream(Channel(source(number, family), group(number, family)), router(LOWER, family), 1)
    for channel in (Channel(None, shared(1, family)), Channel(source(1, family), group(1, family))):
        hear(machine, join(channel))
        hear(machine, prune(channel))
    asserted = Channel(source(3, family), group(3, family))
    machine.set_forwarding(asserted, (200, 0), 1)
    machine.data_received(asserted, 1)
    packets += run(machine, 4.5)
    machine.set_address(router(9, family), (), 5)
    packets += run(machine, 6)
    machine.stop(7)
    packets += run(machine, 7)
    return [encode_packet(packet.message, packet.source, packet.destination) for _, packet in packets]


@both_families
def test_tshark_finds_no_fault(family: Family, tmp_path: Path) -> None:
    capture = tmp_path / "said.pcap"
    write_pcap(capture, everything_said(family))
    names = ("pim.type", "pim.cksum.status", "_ws.malformed", "_ws.expert.message")
    shown = run_tshark("-r", str(capture), "-T", "fields", *(part for name in names for part in ("-e", name)))
    rows = [line.split("\t") for line in shown.splitlines()]
    assert {row[0] for row in rows} == {HELLO, JOIN_PRUNE, ASSERT}
    assert {tuple(row[1:]) for row in rows} == {(GOOD, "", "")}
