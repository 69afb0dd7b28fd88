"""Random inner packets: the program on the uplinks refuses them for the same reasons as the userspace engine."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from agent.dataplane.engine import Refusal
from agent.dataplane.userspace_inner import inspect
from agent.net.bpf import object_path
from lab.bench.gateway_program import DROP, PASS, REDIRECT, GatewayProgram, Outer, refused
from lab.bench.inner_packets import datagram, ipv4, ipv6

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root"),
    pytest.mark.skipif(not object_path("gateway").exists(), reason="gateway.bpf.o is missing: `make bpf`"),
]
ROUNDS = 400
STARTS = {
    4: "00 0001 0a 7f 80 a9fe a9ff c0a8 df e0000000 e0000001 e00000ff e0000101 e0000127 e0000128 e8 ef f0 ffffffff",
    6: f"{0:032x} {1:032x} {2:032x} {0xFFFF:024x} 2001 fc00 fe80 febf fec0 ff00 ff01 ff02 ff05 ff0e ff12 ff3e fff1",
}
"""How addresses of each class begin."""


@pytest.fixture(scope="module")
def program() -> Iterator[GatewayProgram]:
    with GatewayProgram() as loaded:
        yield loaded


@pytest.mark.parametrize("version", [4, 6])
def test_addresses_and_hops_are_judged_as_in_userspace(program: GatewayProgram, version: int) -> None:
    chosen = random.Random(version)
    size = 4 if version == 4 else 16

    def address() -> str:
        start = bytes.fromhex(chosen.choice(STARTS[version].split()))
        return str(ip_address(start + chosen.randbytes(size - len(start))))

    for _ in range(ROUNDS):
        ends, hops = {"source": address(), "group": address()}, chosen.choice([0, 1, 2, 64])
        body = bytes(20)
        packet = ipv4(body, ttl=hops, **ends) if version == 4 else ipv6(body, hop_limit=hops, next_header=17, **ends)
        wanted = inspect(packet, lambda _address: False)
        program.forget_counts()
        run = program.run(Outer(version).around(packet))
        reason = wanted if isinstance(wanted, Refusal) else Refusal.NOT_SUBSCRIBED
        assert (run.verdict, program.counts()) == (DROP, refused(reason)), ends


@pytest.mark.parametrize("version", [4, 6])
def test_a_damaged_frame_meets_one_fate_at_most(program: GatewayProgram, version: int) -> None:
    chosen = random.Random(10 + version)
    program.set_channel(version, tunnel=version)
    whole = Outer(version).around(datagram(version, b"payload"))
    for _ in range(ROUNDS):
        frame = bytearray(whole)
        for _ in range(chosen.choice([1, 1, 2, 4])):
            frame[chosen.randrange(12, len(frame))] = chosen.randrange(256)
        if chosen.random() < 0.2:
            del frame[chosen.randrange(20, len(frame)) :]
        program.forget_counts()
        run = program.run(bytes(frame))
        counts = program.counts()
        assert run.verdict in {DROP, PASS, REDIRECT}
        assert len(counts) == {DROP: 1, PASS: len(counts) and 1, REDIRECT: 2}[run.verdict], bytes(frame).hex()
        assert run.verdict == REDIRECT or run.data == bytes(frame)
