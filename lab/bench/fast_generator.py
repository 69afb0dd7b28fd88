"""The sender: a process of its own on a core of its own, which makes packets in the kernel (lab/bpf/generator.bpf.c).

`python -m lab.bench.fast_generator` reads JSON lines from standard input: first what to send, then runs; it answers
each with a line.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from agent.net.bpf import live_frames
from lab.bench.engine_topology import UPLINK_AT_RELAY
from lab.bench.fast_flows import SMALLEST, Link, Stream, flow
from lab.bench.fast_objects import load_lab
from lab.bench.relay_topology import inside

CORE: Final = 0
_STATE: Final = struct.Struct("=IIQQQQQQ")
MOST_RATE: Final = 4e6
"""Packets a second: more than it can make, without ever waiting."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one run sent: packets, and the seconds from the first to the end of the last, by the kernel's clock."""

    packets: int
    seconds: float

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.packets / self.seconds if self.seconds else 0.0


class Generator:
    """The client of a generator's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def send(self, rate: float, seconds: float, burst: int = 32) -> Sent:
        """Send evenly, `burst` packets at once (256 at most); a rate it cannot keep takes longer.

        Raises:
            RuntimeError: the process ended.
        """
        return Sent(**_ask(self._process, {"rate": rate, "seconds": seconds, "burst": burst}))

    def begin(self, rate: float, seconds: float, burst: int = 32) -> None:
        """The same, not waiting for the end."""
        _tell(self._process, {"rate": rate, "seconds": seconds, "burst": burst})

    def end(self) -> Sent:
        """Wait for the end of what was begun."""
        return Sent(**_answer(self._process))


@contextmanager
def generator(namespace: str, stream: Stream, link: Link, interface: str = UPLINK_AT_RELAY) -> Iterator[Generator]:
    """A generator in a namespace, ready to send.

    Raises:
        RuntimeError: it cannot be.
    """
    assert stream.size >= SMALLEST, f"at least {SMALLEST} octets of payload"
    command = [sys.executable, "-m", "lab.bench.fast_generator"]
    with inside(namespace):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        ends = {"sender": link.sender.hex(), "receiver": link.receiver.hex(), "port": link.port}
        _ask(process, {"stream": asdict(stream), "link": ends, "interface": interface})
        yield Generator(process)
    finally:
        process.kill()
        process.communicate()


def _ask(process: subprocess.Popen[str], question: dict[str, Any]) -> dict[str, Any]:
    _tell(process, question)
    return _answer(process)


def _tell(process: subprocess.Popen[str], question: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the generator ended")
    answer: dict[str, Any] = json.loads(line)
    return answer


class _Program:
    """The program with its flows; in the process of its own."""

    def __init__(self, stream: Stream, link: Link, interface: str) -> None:
        self._object = load_lab("generator")
        self._states = self._object.map("states")
        self._index = socket.if_nametoindex(interface)
        self._channels = stream.channels
        flows = self._object.map("flows")
        for channel in range(stream.channels):
            made = flow(stream, link, channel)
            flows.update(channel, made.pack())
            self._frame = made.frame

    def run(self, rate: float, seconds: float, burst: int) -> Sent:
        interval = round(1e9 / rate)
        self._states.update(0, _STATE.pack(self._index, self._channels, interval, time.monotonic_ns(), 0, burst, 0, 0))
        # One call for all of them: its end takes milliseconds, in which nothing is sent.
        live_frames(self._object.program("generate"), self._frame, max(1, round(rate * seconds)), burst)
        state = self._states.lookup(0)
        assert state is not None
        *_, sent, _, first, last = _STATE.unpack(state)
        # A burst leaves at once: its time ends when the next would be due, which is `last` and an interval of a burst.
        bursts = max(1, -(-sent // burst))
        passed = (last - first) / 1e9
        return Sent(sent, passed * bursts / (bursts - 1) if bursts > 1 else max(passed, sent / rate))


def main() -> None:
    """Serve the client until standard input ends."""
    os.sched_setaffinity(0, {CORE})
    os.nice(-15)  # or whatever else the machine does would be measured
    told = json.loads(sys.stdin.readline())
    ends = told["link"]
    link = Link(bytes.fromhex(ends["sender"]), bytes.fromhex(ends["receiver"]), ends["port"])
    program = _Program(Stream(**told["stream"]), link, told["interface"])
    print("{}", flush=True)
    for line in sys.stdin:
        run = json.loads(line)
        print(json.dumps(asdict(program.run(run["rate"], run["seconds"], run["burst"]))), flush=True)


if __name__ == "__main__":
    main()
