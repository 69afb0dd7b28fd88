"""Where packets end: programs at the hosts' interfaces count them by interface and channel (lab/bpf/sink.bpf.c)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from agent.net.bpf import BpfObject, attach_tc, attach_xdp
from lab.bench.fast_flows import MOST_FLOWS
from lab.bench.fast_objects import load_lab
from lab.bench.relay_topology import inside

_TALLY: Final = struct.Struct("=5Q")
_FINE: Final = 32
_TIMES: Final = 40 * _FINE
_STILL: Final = 0.05  # seconds without a packet: nothing is under way any more


@dataclass(frozen=True, slots=True)
class Tally:
    """What one interface got of one channel; all but the packets only where the sink checks.

    Attributes:
        packets: that arrived.
        gaps: times the sequence jumped ahead.
        missing: packets jumped over.
        backwards: packets behind the one that was due: twice, or too late.
    """

    packets: int = 0
    gaps: int = 0
    missing: int = 0
    backwards: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.packets + other.packets,
            self.gaps + other.gaps,
            self.missing + other.missing,
            self.backwards + other.backwards,
        )

    def __sub__(self, other: Tally) -> Tally:
        return Tally(
            self.packets - other.packets,
            self.gaps - other.gaps,
            self.missing - other.missing,
            self.backwards - other.backwards,
        )


class Sink:
    """Counts at the interfaces of hosts."""

    def __init__(self, loaded: BpfObject, interfaces: int, channels: int) -> None:
        self._tallies = loaded.map("tallies")
        self._times = loaded.map("times")
        self.interfaces = interfaces
        self._channels = channels

    def tally(self, interface: int, channel: int) -> Tally:
        """What an interface got of a channel so far."""
        value = self._tallies.lookup(interface * MOST_FLOWS + channel)
        assert value is not None
        packets, _, gaps, missing, backwards = _TALLY.unpack(value)
        return Tally(packets, gaps, missing, backwards)

    def total(self) -> Tally:
        """All interfaces and channels together, so far."""
        tallies = (self.tally(each, channel) for each in range(self.interfaces) for channel in range(self._channels))
        return sum(tallies, Tally())

    def settled(self, seconds: float = 3.0) -> Tally:
        """The same once nothing arrives any more, or after `seconds`."""
        deadline = time.monotonic() + seconds
        total = self.total()
        while time.monotonic() < deadline:
            time.sleep(_STILL)
            before, total = total, self.total()
            if before == total:
                break
        return total

    def times(self) -> list[int]:
        """Packets by time under way, so far; for `Latency`."""
        return [count for (count,) in self._times.all_sums(0, _TIMES)]


@contextmanager
def sink(namespace: str, interfaces: Sequence[str], channels: int, *, frames: bool, checks: bool) -> Iterator[Sink]:
    """Count and drop at interfaces of a namespace.

    Args:
        namespace: where they are.
        interfaces: their names.
        channels: how many are sent.
        frames: attach to XDP, for engines that send frames; else to TC, for those that send socket buffers.
        checks: look at sequences and times too.

    Raises:
        BpfUnavailableError: the kernel refuses the programs.
        BpfError: the kernel refuses to attach them.
    """
    program = ("sink_xdp" if frames else "sink_tc") + "_checked" * checks
    with ExitStack() as stack:
        loaded = stack.enter_context(load_lab("sink", program))
        with inside(namespace):
            for number, name in enumerate(interfaces):
                index = socket.if_nametoindex(name)
                loaded.map("sinks").update(index.to_bytes(4, "little"), number.to_bytes(4, "little"))
                if frames:
                    stack.enter_context(attach_xdp(loaded.program(program), index))
                else:
                    stack.enter_context(attach_tc(loaded, program, index))
        yield Sink(loaded, len(interfaces), channels)


def nanoseconds(index: int) -> float:
    """Middle of the times that are counted at an index of `Sink.times`."""
    if index < _FINE:
        return float(index)
    shift = index // _FINE - 1
    return float(((_FINE + index % _FINE) << shift) + (1 << shift) / 2)


def percentile(times: Sequence[int], share: float) -> float:
    """Nanoseconds that `share` (0 to 1) of the packets were under way at most, to 3 %; 0 without packets."""
    wanted = share * sum(times)
    counted = 0
    for index, count in enumerate(times):
        counted += count
        if counted and counted >= wanted:
            return nanoseconds(index)
    return 0.0
