"""Random packets of channels that are set: XDP and TC forward them octet by octet as the RFCs say, families mixed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from agent.dataplane.fast.layout import Plane, index_key, interface_list
from agent.net.bpf import object_path
from lab.bench.gateway_program import LOOPBACK, PORT_ADDRESS, REDIRECT, GatewayProgram, Outer, forwarded
from lab.bench.gateway_program_checks import link_header, with_ecn
from lab.bench.inner_packets import GROUP, SOURCE, ipv4, ipv6, one_hop_on

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root"),
    pytest.mark.skipif(not object_path("gateway").exists(), reason="gateway.bpf.o is missing: `make bpf`"),
]
ROUNDS = 300
TC_REDIRECT = 7
"""TC_ACT_REDIRECT."""

FOR_LOOPBACK = bytes(6)
"""Station address of the interface that test runs come in on."""

LEAVES_WITH = {(1, 2): 1, (3, 1): 3, (3, 2): 3, (3, 3): 3}
"""Inner ECN field by the outer and inner one where it changes, RFC 6040 §4.2, figure 4."""


@pytest.fixture(scope="module")
def program() -> Iterator[GatewayProgram]:
    with GatewayProgram() as loaded:
        loaded.map("set_interfaces").update(index_key(1), interface_list((LOOPBACK,)))
        yield loaded


@pytest.mark.parametrize("plane", [Plane.XDP, Plane.TC])
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_what_is_forwarded_is_right_to_the_octet(program: GatewayProgram, plane: Plane, outer: int, inner: int) -> None:
    chosen = random.Random(100 * plane + 10 * outer + inner)
    program.set_channel(inner, tunnel=outer, plane=plane)
    for _ in range(ROUNDS):
        body, mark, ecn = chosen.randbytes(chosen.randrange(20, 1400)), chosen.randrange(4), chosen.randrange(4)
        if mark == 3 and not ecn:
            mark = 0  # lost: RFC 6040 §4.2
        tos, hops, ends = chosen.randrange(64) << 2 | ecn, chosen.randrange(2, 256), (SOURCE[inner], GROUP[inner])
        if inner == 4:
            packet = ipv4(body, source=ends[0], group=ends[1], ttl=hops, tos=tos)
        else:
            packet = ipv6(body, source=ends[0], group=ends[1], hop_limit=hops, traffic_class=tos, next_header=17)
        frame = Outer(outer, tos=mark, padding=bytes(chosen.choice([0, 0, 3, 18]))).around(packet)
        program.forget_counts()
        if plane is Plane.TC:
            run, verdict, source = program.run(FOR_LOOPBACK + frame[6:], "gateway_tc"), TC_REDIRECT, PORT_ADDRESS
        else:
            run, verdict, source = program.run(frame), REDIRECT, None
        wanted = with_ecn(one_hop_on(packet), LEAVES_WITH.get((mark, ecn), ecn))
        header = link_header(packet) if source is None else link_header(packet, source)
        assert (run.verdict, run.data) == (verdict, header + wanted), (tos, mark, hops, len(body))
        assert program.counts() == forwarded(inner, outer, len(packet))
