"""The gateway's programs, run on single frames without any network (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self

from forwarding.engines import PROGRAMS
from vectors.forwarding.case import Case
from vectors.forwarding.world import (
    ACCEPTED_GROUP,
    CHANNELS,
    GATEWAY,
    MTU,
    PENDING_GROUP,
    RELAY,
    RELAY_PORT,
    TUNNELS,
    UPLINK_MAC,
    Subscription,
    port_mac,
)

from agent.dataplane.engine import Refusal
from agent.dataplane.fast.layout import (
    REFUSALS,
    ChannelEntry,
    Plane,
    channel_key,
    devmap_value,
    group_key,
    index_key,
    interface_list,
    port_value,
    tunnel_key,
    tunnel_value,
)
from agent.net.bpf import MapKind, create_map, load, test_run
from agent.protocol.channels import Channel, Endpoint

LOOPBACK: Final = 1
"""Index of the interface that every namespace has; nothing is sent to it in a trial."""


@dataclass(frozen=True)
class Program:
    """A program, and what its verdicts mean.

    Attributes:
        lacks: abilities that vectors name and it has not.
        of_loopback: whether the kernel looks at stations in a trial, where ours is that of loopback.
        least_body: octets behind the inner IP header below which it may leave a packet to the socket.
    """

    name: str
    plane: Plane
    passed: frozenset[int]
    dropped: int
    redirected: int
    single_only: bool
    of_loopback: bool = False
    lacks: frozenset[str] = PROGRAMS
    least_body: int = 0


XDP: Final = Program("gateway_xdp", Plane.XDP, frozenset({2}), 1, 4, single_only=False)
TC: Final = Program(
    "gateway_tc", Plane.TC, frozenset({0, -1, 0xFFFFFFFF}), 2, 7, single_only=True, of_loopback=True, least_body=8
)
"""TC copies to all interfaces but the last even in a trial, so only channels with one are tried."""


class Trial:
    """A program with the tunnels and channels of `vectors.forwarding.world` in its maps."""

    def __init__(self, program: Program, outer: int, link: str) -> None:
        self._program = program
        self._outer = outer
        self._mtu = MTU[link]

    def __enter__(self) -> Self:
        """Load it and fill its maps."""
        with ExitStack() as stack:
            self._loaded = stack.enter_context(load("gateway", programs=[self._program.name]))
            outgoing = create_map(MapKind.DEVMAP, "outgoing", 4, 8, 1)
            stack.callback(outgoing.close)
            outgoing.update(index_key(0), devmap_value(LOOPBACK, 0))
            self._loaded.map("single_ports").update(index_key(LOOPBACK), devmap_value(LOOPBACK, 0))
            self._loaded.map("sets").update(index_key(1), outgoing.fd.to_bytes(4, "little"))
            self._loaded.map("set_interfaces").update(index_key(1), interface_list((LOOPBACK,)))
            self._loaded.map("ports").update(index_key(LOOPBACK), port_value(port_mac("down0")))
            self._subscribe()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Unload it."""
        self._stack.close()

    def _subscribe(self) -> None:
        relay = Endpoint(ip_address(RELAY[self._outer]), RELAY_PORT)
        slots = {name: slot for slot, name in enumerate(TUNNELS)}
        for name, port in TUNNELS.items():
            key = tunnel_key(Endpoint(ip_address(GATEWAY[self._outer]), port))
            value = tunnel_value(relay, slots[name], strict_port=name != "lax", station=UPLINK_MAC)
            self._loaded.map(f"tunnels{self._outer}").update(key, value)
        for slot, (name, families) in enumerate(CHANNELS.items()):
            for family, there in families.items():
                entry = self._entry(2 * slot + (family == 6), name, there, slots[there.tunnel])
                channel = Channel(ip_address(there.source), ip_address(there.group))
                self._loaded.map(f"channels{family}").update(channel_key(channel), entry.pack())
        for groups in (ACCEPTED_GROUP, PENDING_GROUP):
            for family, group in groups.items():
                self._loaded.map(f"groups{family}").update(group_key(ip_address(group)), b"\1")

    def _entry(self, slot: int, name: str, there: Subscription, tunnel: int) -> ChannelEntry:
        return ChannelEntry(
            slot,
            tunnel,
            set=1,
            single=LOOPBACK if len(there.interfaces) == 1 else 0,
            limit=min(self._mtu[interface] for interface in there.interfaces),
            plane=self._program.plane,
            refuse=Refusal.SPOOFED_LOCAL_SOURCE if name == "local" else None,
        )

    def judge(self, case: Case) -> str:
        """Run the program on a case; what is not as it should be, empty when everything is."""
        if len(case.frames) != 1 or (self._program.single_only and len(case.leaves) > 1):
            return ""
        before = self._refused()
        run = test_run(self._loaded.program(self._program.name), self._frame(case))
        counted = [name for name, old, new in zip(NAMES, before, self._refused(), strict=True) if new > old]
        wrong = self._complaint(case, run.verdict, run.data, counted)
        return f"{case.name} ({case.rfc}): {wrong}" if wrong else ""

    def _frame(self, case: Case) -> bytes:
        return to_loopback(case.frames[0]) if self._program.of_loopback else case.frames[0]

    def _refused(self) -> list[int]:
        counters = self._loaded.map("refused")
        return [counters.sums(index)[0] for index in range(len(REFUSALS))]

    def _complaint(self, case: Case, verdict: int, data: bytes, counted: list[str]) -> str:
        unseen = case.needs in self._program.lacks
        if verdict in self._program.passed:
            if data != self._frame(case) or counted:
                return f"handed on, but changed or counted {counted}"
            small = any(_body(frame) < self._program.least_body for _, frame in case.forward)
            return "" if case.left or small or case.expect != "forward" else "left to the socket"
        if verdict == self._program.dropped:
            reasons = [case.counted] if unseen and case.counted else case.reasons
            as_told = case.expect in {"refuse", "nothing"} and counted in [[reason] for reason in reasons]
            return "" if as_told else f"dropped, counted as {counted}, instead of {case.expect} {case.reasons}"
        if verdict != self._program.redirected or counted:
            return f"verdict {verdict}, counted {counted}"
        expected = case.leaves_unseen if unseen else case.leaves
        if not expected:
            return f"forwarded instead of {case.expect} {case.reasons}"
        whole = {frame[:6] + frame[12:] for frames in expected.values() for frame in frames}
        # The source address is written on the way out of each interface.
        return "" if whole == {data[:6] + data[12:]} else f"forwarded as {data.hex()}"


def _body(frame: bytes) -> int:
    """Octets behind the IP header of a frame without options."""
    return len(frame) - 14 - (20 if frame[14] >> 4 == 4 else 40)


def to_loopback(frame: bytes) -> bytes:
    """The frame for the station that the kernel runs programs at, where it is for ours."""
    return bytes(6) + frame[6:] if frame[:6] == UPLINK_MAC else frame


NAMES: Final = [refusal.value for refusal in REFUSALS]
