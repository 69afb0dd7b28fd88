"""What is measured, as a client of its process and as that process: `python -m lab.bench.fast_subject ENGINE …`.

The process runs in the gateway's namespace on the core that is measured, and answers lines of JSON on standard input
with lines of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from agent.net.mroute import MulticastRouter
from agent.protocol.channels import Channel, Family
from lab.bench.engine_topology import UPLINK_AT_GATEWAY, EngineTopology, downstream
from lab.bench.fast_border import PLANES, FastBorder
from lab.bench.fast_flows import Stream
from lab.bench.fast_remains import descriptors, objects
from lab.bench.one_core import CORE
from lab.bench.relay_topology import inside

NATIVE: Final = "native"
NATIVE_MERGING: Final = "native-gro"
USERSPACE: Final = "userspace"
ENGINES: Final = (NATIVE, NATIVE_MERGING, "xdp", "xdp-mfc", "tc", USERSPACE)
"""Everything measured side by side, the kernel's own forwarding first."""

_READY_SECONDS: Final = 10.0


class Subject:
    """The client."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        ready = self._answer()
        self.port = int(ready["port"])
        self.how: str = ready["how"]

    @property
    def process_id(self) -> int:
        """Of the process, whose threads' CPU time counts."""
        return self._process.pid

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Have something done.

        Raises:
            RuntimeError: the process ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Have the engine close, and wait for the process's end."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(_READY_SECONDS)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the measured process ended")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer


@contextmanager
def subject(topology: EngineTopology, engine: str, stream: Stream, interfaces: int) -> Iterator[Subject]:
    """A process that forwards all channels of a stream to all interfaces.

    Raises:
        RuntimeError: it cannot; the message says why.
    """
    command = [sys.executable, "-m", "lab.bench.fast_subject", engine, "--prefix", topology.prefix]
    command += ["--channels", str(stream.channels), "--interfaces", str(interfaces)]
    command += ["--version", str(stream.version), "--outer", str(stream.outer)]
    with inside(topology.gateway):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        running = Subject(process)
        yield running
        running.close()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def main() -> None:
    """Forward as told on the command line until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--interfaces", type=int, default=1)
    parser.add_argument("--version", type=int, default=4)
    parser.add_argument("--outer", type=int, default=4)
    options = parser.parse_args()
    os.sched_setaffinity(0, {CORE})
    os.nice(-15)
    stream = Stream(options.channels, version=options.version, outer=options.outer)
    interfaces = [downstream(index) for index in range(options.interfaces)]
    if options.engine in (NATIVE, NATIVE_MERGING):
        _forward_natively(stream, interfaces)
    else:
        _forward_tunnelled(options, stream, interfaces)


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _forward_natively(stream: Stream, interfaces: list[str]) -> None:
    router = MulticastRouter(Family(stream.version))
    for channel in range(stream.channels):
        group = ip_address(stream.group(channel))
        router.set_route(ip_address(stream.source), group, UPLINK_AT_GATEWAY, interfaces)
    _say({"port": 0, "how": "multicast routing"})
    for _ in sys.stdin:
        _say({})
    router.close()


class _Commands:
    """What the client may ask of an engine."""

    def __init__(self, border: FastBorder, stream: Stream, interfaces: list[str]) -> None:
        self._border = border
        self._stream = stream
        self._interfaces = frozenset(interfaces)
        self._asked: dict[str, Callable[..., dict[str, Any]]] = {
            "counters": self.counters,
            "joins": self.joins,
            "set": self.set,
            "remove": self.remove,
            "left": self.left,
            "objects": self.objects,
            "remove_tunnel": self.remove_tunnel,
        }

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        return self._asked[question.pop("command")](**question)

    def counters(self) -> dict[str, Any]:
        """Packets forwarded and refused, by reason."""
        counters = self._border.engine.counters()
        refused = {reason.value: count for reason, count in counters.refused.items()}
        return {
            "forwarded": counters.forwarded.packets,
            "exceptions": self._border.exceptions(),
            "refused": refused,
            "resident": _resident(),
            "descriptors": descriptors(),
        }

    def joins(self, before: int, count: int) -> dict[str, Any]:
        """Seconds each of `count` joins takes next to `before` other channels; all leave again."""
        others = [
            Channel.parse("198.51.100.20", f"232.{2 + n // 65536}.{n // 256 % 256}.{n % 256}") for n in range(before)
        ]
        tried = [Channel.parse("198.51.100.21", f"232.100.{n // 256}.{n % 256}") for n in range(count)]
        engine, tunnels = self._border.engine, frozenset({"relay"})
        for channel in others:
            engine.set_channel(channel, tunnels, self._interfaces)
        gc.collect()
        seconds = []
        for channel in tried:
            begun = time.perf_counter()
            engine.set_channel(channel, tunnels, self._interfaces)
            seconds.append(time.perf_counter() - begun)
        fast = self._border.planes(tried)
        for channel in (*tried, *others):
            engine.remove_channel(channel)
        return {"seconds": seconds, "planes": fast}

    def set(self, channels: list[int], interfaces: list[int] | None = None) -> dict[str, Any]:
        """Forward channels of the stream, by number, to all interfaces or some; those not sent have no traffic."""
        wanted = self._interfaces if interfaces is None else frozenset(map(downstream, interfaces))
        for number in channels:
            self._border.engine.set_channel(self._channel(number), frozenset({"relay"}), wanted)
        return {}

    def remove(self, channels: list[int]) -> dict[str, Any]:
        """Forward them no more."""
        for number in channels:
            self._border.engine.remove_channel(self._channel(number))
        return {}

    def left(self) -> dict[str, Any]:
        """What the maps of the programs and the engine's books still have."""
        return self._border.left()

    def objects(self) -> dict[str, Any]:
        """Numbers of the BPF objects there are."""
        found = objects()
        return {**found, "map": [*found["map"], *self._border.inner_maps()]}

    def remove_tunnel(self) -> dict[str, Any]:
        """Close the tunnel."""
        self._border.engine.remove_tunnel("relay")
        return {}

    def _channel(self, number: int) -> Channel:
        return Channel.parse(self._stream.source, self._stream.group(number))


def _resident() -> int:
    """Octets of memory the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _forward_tunnelled(options: argparse.Namespace, stream: Stream, interfaces: list[str]) -> None:
    topology = EngineTopology(options.prefix)
    families = (Family(stream.version),)
    plane = PLANES.get(options.engine)
    with FastBorder(topology, outer=stream.outer, families=families, plane=plane) as border:
        groups = [stream.group(channel) for channel in range(stream.channels)]
        channels = [border.forward(stream.version, *interfaces, source=stream.source, group=group) for group in groups]
        try:
            how = border.wait_until_fast(channels, _READY_SECONDS)
        except TimeoutError as error:
            _say({"failed": str(error)})
            return
        commands = _Commands(border, stream, interfaces)
        _serve(border.loop, commands, {"port": border.sockets[0].getsockname()[1], "how": how})


def _serve(loop: asyncio.AbstractEventLoop, commands: _Commands, ready: dict[str, Any]) -> None:
    def answer() -> None:
        line = sys.stdin.readline()
        if not line:
            loop.stop()
            return
        _say(commands.answer(json.loads(line)))

    loop.add_reader(sys.stdin.fileno(), answer)
    _say(ready)
    loop.run_forever()
    loop.remove_reader(sys.stdin.fileno())


if __name__ == "__main__":
    main()
