"""The structures of the kernel's multicast routing, against linux/mroute.h and linux/mroute6.h."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from agent.net.mroute_layout import LayoutIPv4, LayoutIPv6, Upcall

FOUR = (ip_address("198.51.100.10"), ip_address("232.1.1.1"))
SIX = (ip_address("2001:db8::10"), ip_address("ff3e::1"))


def test_structures_have_the_sizes_the_kernel_checks() -> None:
    four, six = LayoutIPv4(), LayoutIPv6()
    assert (len(four.interface(3, 9)), len(four.route(*FOUR, 1, [2])), len(four.count_request(*FOUR))) == (16, 60, 32)
    assert (len(six.interface(3, 9)), len(six.route(*SIX, 1, [2])), len(six.count_request(*SIX))) == (12, 92, 80)


def test_outgoing_slots_become_thresholds_and_bits() -> None:
    thresholds = LayoutIPv4().route(*FOUR, 5, [0, 2, 31])[10:42]
    assert [slot for slot, threshold in enumerate(thresholds) if threshold == 1] == [0, 2, 31]
    route = LayoutIPv6().route(*SIX, 5, [0, 2, 31])
    assert struct.unpack_from("=H2xI", route, 56) == (5, 1 | 4 | 1 << 31)


def test_upcalls_are_read_and_anything_else_is_not() -> None:
    four = bytes(8) + bytes((1, 0, 7, 0)) + FOUR[0].packed + FOUR[1].packed
    assert LayoutIPv4().upcall(four) == Upcall(*FOUR, slot=7, unresolved=True)
    assert LayoutIPv4().upcall(four[:8] + b"\x02" + four[9:]) == Upcall(*FOUR, slot=7, unresolved=False)
    assert LayoutIPv4().upcall(four[:9] + b"\x02" + four[10:]) is None  # an IGMP packet
    assert LayoutIPv4().upcall(four[:8] + b"\x03" + four[9:]) is None  # a whole packet for PIM Register
    assert LayoutIPv4().upcall(four[:19]) is None
    six = bytes((0, 1)) + struct.pack("=HI", 7, 0) + SIX[0].packed + SIX[1].packed
    assert LayoutIPv6().upcall(six) == Upcall(*SIX, slot=7, unresolved=True)
    assert LayoutIPv6().upcall(b"\x8f" + six[1:]) is None
    assert LayoutIPv6().upcall(six[:39]) is None
