"""What the gateway's userspace engine costs, beside the kernel's own multicast forwarding in the same topology.

Everything the gateway does runs on one core: the process, and the uplink's receive processing, which threaded NAPI
makes a thread of its own. The sender has the other core. Costs are CPU time of that one core per packet forwarded, the
sink's first steps included (it drops everything at its ingress).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from pyroute2 import Ethtool

from lab.bench.engine_topology import (
    GATEWAY_IPV4,
    UPLINK_AT_GATEWAY,
    UPLINK_AT_RELAY,
    EngineTopology,
    host_interface,
)
from lab.bench.one_core import cpu_seconds, receive_on_one_core
from lab.bench.relay_topology import inside, run

_SECONDS: Final = 1.5
_REPEATS: Final = 3  # the best counts: whatever else the machine does makes it worse
_STEPS_DOWN: Final = (0.95, 0.88, 0.8, 0.7, 0.6, 0.5, 0.4)


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        name: what is measured.
        native: the kernel forwards native multicast, no tunnel.
        channels: channels, interleaved packet by packet.
        interfaces: downstream interfaces each packet leaves by.
        size: octets of UDP payload.
        zero_checksums: the relay leaves outer checksums out.
        per_packet: one packet a write, as on kernels before 6.2.
        segmenting: the gateway cuts trains into packets itself; else the (virtual) network card does.
    """

    name: str
    native: bool = False
    channels: int = 1
    interfaces: int = 1
    size: int = 1316
    zero_checksums: bool = False
    per_packet: bool = False
    segmenting: bool = False


CASES: Final = (
    Case("native", native=True),
    Case("native, 8 interfaces", native=True, interfaces=8),
    Case("native, 200 octets", native=True, size=200),
    Case("userspace, 1 channel"),
    Case("userspace, 8 channels", channels=8),
    Case("userspace, 1 channel, 8 interfaces", interfaces=8),
    Case("userspace, 8 channels, 8 interfaces", channels=8, interfaces=8),
    Case("userspace, 1 channel, 200 octets", size=200),
    Case("userspace, 8 channels, 200 octets", channels=8, size=200),
    Case("userspace, 1 channel, packets cut by the gateway", segmenting=True),
    Case("userspace, 8 channels, packets cut by the gateway", channels=8, segmenting=True),
    Case("userspace, 1 channel, zero outer checksums", zero_checksums=True),
    Case("userspace, 8 channels, zero outer checksums", channels=8, zero_checksums=True),
    Case("userspace, 1 channel, one packet a write", per_packet=True),
)


def measure(case: Case, prefix: str = "isx-bench") -> dict[str, Any]:
    """Measure one case, in fifteen to thirty seconds.

    Returns:
        The case's fields, and `packets_per_second` (the highest rate tried without loss, 0 when there was none),
        `ns_per_packet` (CPU of one core, the best of all runs), and what came out when more was sent than fits:
        `saturated_per_second`, at `saturated_ns_per_packet`, which the packets that were lost make dearer.
    """
    with EngineTopology(prefix, downstreams=case.interfaces, offloads=not case.segmenting) as topology:
        _prepare(topology, case)
        threads = receive_on_one_core(topology.gateway, UPLINK_AT_GATEWAY)
        full = [_run(topology, case, threads, 0.0) for _ in range(_REPEATS)]
        saturated = max(each["packets"] / each["seconds"] for each in full)
        whole: list[dict[str, Any]] = []
        for share in _STEPS_DOWN:
            attempt = _run(topology, case, threads, saturated * share)
            if attempt["packets"] == attempt["sent"]:
                whole = [attempt, *(_run(topology, case, threads, saturated * share) for _ in range(_REPEATS - 1))]
                break
    return {
        **asdict(case),
        "ns_per_packet": min(map(_nanoseconds, whole + full)),
        "packets_per_second": max((_rate(each) for each in whole), default=0),
        "saturated_per_second": round(saturated),
        "saturated_ns_per_packet": min(map(_nanoseconds, full)),
        "receive_processing_counted": bool(threads),
    }


def _nanoseconds(figures: dict[str, Any]) -> int:
    return round(float(figures["cpu"]) / int(figures["packets"]) * 1e9)


def _rate(figures: dict[str, Any]) -> int:
    packets, seconds = int(figures["packets"]), float(figures["seconds"])
    return round(packets / seconds) if packets == figures["sent"] else 0


def measure_all() -> list[dict[str, Any]]:
    """Every case of `CASES`."""
    return [measure(case) for case in CASES]


def _prepare(topology: EngineTopology, case: Case) -> None:
    """Single datagrams on the uplink, and a sink that drops at once."""
    with inside(topology.relay):
        _without_segmentation(UPLINK_AT_RELAY)
    with inside(topology.host):
        for index in range(case.interfaces):
            hook = f"type filter hook ingress device {host_interface(index)} priority 0; policy drop;"
            run("nft", f"table netdev sink{index} {{ chain sink {{ {hook} }}; }}")


def _without_segmentation(interface: str) -> None:
    with Ethtool() as ethtool:
        features = ethtool.get_features(interface)
        features.features["tx-udp-segmentation"].enable = False
        ethtool.set_features(interface, features)


@contextmanager
def _subject(topology: EngineTopology, case: Case) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lab.bench.engine_subject", "--prefix", topology.prefix]
    command += ["--channels", str(case.channels), "--interfaces", str(case.interfaces)]
    command += ["--native"] * case.native + ["--per-packet"] * case.per_packet
    with inside(topology.gateway):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _run(topology: EngineTopology, case: Case, threads: list[int], rate: float) -> dict[str, Any]:
    with _subject(topology, case) as subject:
        assert subject.stdout is not None
        port = subject.stdout.readline().split()[1]
        command = [sys.executable, "-m", "lab.bench.engine_load", "--channels", str(case.channels)]
        command += ["--size", str(case.size), "--rate", str(rate), "--seconds", str(_SECONDS)]
        command += [] if case.native else ["--target", f"{GATEWAY_IPV4}:{port}"]
        command += ["--zero-checksums"] * case.zero_checksums
        before = cpu_seconds(threads)
        with inside(topology.relay):
            load = json.loads(run(*command))
        time.sleep(0.3)  # what is queued drains
        cpu = cpu_seconds(threads) - before
        subject.terminate()
        result: dict[str, Any] = json.loads(subject.stdout.readline())
        result["cpu"] += cpu
        return {**result, **load}


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for each in CASES:
        if not wanted or each.name in wanted:
            print(json.dumps(measure(each)), flush=True)
