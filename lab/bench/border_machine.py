"""The PIM machine alone with many (S,G), no network: `python -m lab.bench.border_machine CHANNELS` prints JSON.

A process of its own, so that what the states weigh is what the process grew by.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from agent.protocol import pim_packet
from agent.protocol.channels import Channel, Family
from agent.protocol.group_state import InterestChanged
from agent.protocol.pim import PimInterface
from agent.protocol.pim_config import PimConfig
from agent.protocol.wire.pim import (
    HOLDTIME_FOREVER,
    EncodedSource,
    Hello,
    JoinPruneEntry,
    Message,
    pack_join_prunes,
)
from lab.bench.border_neighbor import HOLDTIME, PACKET_SIZE, numbered_channels

CHANNELS: Final = 100_000
_SOURCES: Final = 10
_OURS, _THEIRS = ip_address("10.20.0.1"), ip_address("10.20.0.254")


@dataclass(frozen=True, slots=True)
class MachineCost:
    """What many states cost the machine; times in seconds of processor.

    Attributes:
        channels: (S,G) states.
        messages: that say all of them once.
        join: to take all Joins and give out the interest.
        refresh: to take them once more.
        slowest: longest of all calls, be it for a message or a timer.
        expire: to let all of them run out.
        bytes_a_state: growth of the process.
    """

    channels: int
    messages: int
    join: float
    refresh: float
    slowest: float
    expire: float
    bytes_a_state: float


def measure(channels: int = CHANNELS) -> MachineCost:
    """In a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "lab.bench.border_machine", str(channels)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return MachineCost(**json.loads(done.stdout))


class _Measured:
    """A machine whose every call is timed."""

    def __init__(self) -> None:
        self.slowest = 0.0
        self.spent = 0.0
        self.interest = 0
        self.machine = PimInterface(PimConfig(), Family.IPV4, lambda: 0.5, lambda: 1)
        self.machine.start(0.0)
        self.machine.set_address(_OURS, (), 0.0)

    def step(self, action: Callable[[], None]) -> None:
        """One call and what its owner does after it."""
        begun = time.process_time()
        action()
        self.machine.packets_to_send()
        self.interest += sum(isinstance(event, InterestChanged) for event in self.machine.events())
        self.machine.next_deadline()
        took = time.process_time() - begun
        self.spent += took
        self.slowest = max(self.slowest, took)

    def receive(self, packets: Iterable[bytes], now: float) -> float:
        """Processor time that packets take."""
        self.spent = 0.0
        for packet in packets:
            self.step(lambda packet=packet: self.machine.receive_packet(packet, now))  # type: ignore[misc]
        return self.spent

    def expire(self) -> float:
        """Processor time until no state is left."""
        self.spent = 0.0
        now = 2.0 * HOLDTIME + 1.0
        while self.machine.channel_count:
            self.step(lambda: self.machine.handle_timer(now))
        return self.spent


def _packets(channels: list[Channel]) -> list[bytes]:
    entries: list[JoinPruneEntry] = [
        (channel.group, EncodedSource(channel.source)) for channel in channels if channel.source is not None
    ]
    return [_packet(message) for message in pack_join_prunes(_OURS, HOLDTIME, entries, (), PACKET_SIZE)]


def _packet(message: Message) -> bytes:
    return pim_packet.encode_packet(message, _THEIRS, pim_packet.ALL_PIM_ROUTERS[Family.IPV4])


def _resident_bytes() -> int:
    fields = Path("/proc/self/smaps_rollup").read_text().split()
    return int(fields[fields.index("Rss:") + 1]) * 1024


def _run(channels: int) -> MachineCost:
    packets = _packets(numbered_channels(channels // _SOURCES, _SOURCES))
    gc.collect()
    gc.freeze()
    measured = _Measured()
    measured.receive([_packet(Hello(HOLDTIME_FOREVER, generation_id=1))], 0.0)
    before = _resident_bytes()
    join = measured.receive(packets, 1.0)
    grown = _resident_bytes() - before
    assert measured.machine.channel_count == channels
    assert measured.interest >= channels // _SOURCES
    refresh = measured.receive(packets, 61.0)
    expire = measured.expire()
    return MachineCost(channels, len(packets), join, refresh, measured.slowest, expire, grown / channels)


if __name__ == "__main__":
    print(json.dumps(asdict(_run(int(sys.argv[1])))))
