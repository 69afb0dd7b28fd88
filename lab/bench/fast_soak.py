"""A long time near the engine's limit while channels join and leave; afterwards nothing is left and all is counted."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from pyroute2 import NetNS

from lab.bench.engine_topology import UPLINK_AT_RELAY, downstream, set_sysctl
from lab.bench.fast_flows import MOST_FLOWS
from lab.bench.fast_remains import left_in_namespace, outlived
from lab.bench.fast_rig import Case, Rig, rig
from lab.bench.fast_search import keep, overload
from lab.bench.fast_sink import Tally
from lab.bench.fast_tracepoint import Handed, handed
from lab.bench.relay_topology import inside

SHARE: Final = 0.9  # of the rate it keeps up with
_CHANGES: Final = 100  # joins and leaves in a second
_STEP: Final = 0.1
_STEADY: Final = 48  # channels of MOST_FLOWS that never leave
_NUMBERS: Final = 250  # those beyond MOST_FLOWS have no traffic
_GROWTH: Final = 16_000_000  # octets the agent may grow by, once it has seen every channel
_RETIRED_SECONDS: Final = 3.0  # after which counters of what left are free again
_SETTLED: Final = 0.1  # of the time, after which it has


@dataclass(frozen=True, slots=True)
class SoakResult:
    """What a soak found.

    Attributes:
        engine: its name.
        seconds: it took.
        sent: packets.
        changes: joins and leaves.
        resident_before: octets of the agent's process a tenth into it.
        resident_after: the same at the end.
        problems: what was left over or did not add up, in words.
        checked: what was compared, in words.
        rate: packets a second.
        told: what became of the packets, in words.
        descriptors: files the agent had open at the end.
    """

    engine: str
    seconds: float
    sent: int
    changes: int
    resident_before: int
    resident_after: int
    problems: tuple[str, ...]
    checked: tuple[str, ...] = ()
    rate: float = 0.0
    told: str = ""
    descriptors: int = 0


class _Books:
    """Everything that counts packets, before and after."""

    def __init__(self, running: Rig, frames: Handed | None) -> None:
        self._running = running
        self._frames = frames
        self._names = [downstream(number) for number in range(running.case.interfaces)]
        self.told = ""
        self._before = self._read()

    def _read(self) -> dict[str, Any]:
        running = self._running
        counted = running.subject.ask("counters")
        total = running.sink.settled()
        steady = [
            running.sink.tally(interface, channel)
            for interface in range(running.sink.interfaces)
            for channel in range(_STEADY)
        ]
        with NetNS(running.topology.gateway) as route:
            links = {name: route.get_links(ifname=name)[0] for name in self._names}
        devices = [int(links[name].get(("stats64", "tx_packets"))) for name in self._names]
        redirected, unsent = [], 0
        if self._frames is not None:
            redirected = [self._frames.to(running.topology.gateway, name) for name in self._names]
            unsent = self._frames.to(running.topology.relay, UPLINK_AT_RELAY)[1]
        refused = sum(counted["refused"].values())
        return {
            "forwarded": counted["forwarded"],
            "exceptions": counted["exceptions"],
            "refused": refused,
            "sink": total,
            "steady": steady,
            "devices": devices,
            "redirected": redirected,
            "unsent": unsent,
        }

    def compare(self, sent: int) -> tuple[list[str], list[str]]:
        """What does not add up, and what was compared."""
        before, after = self._before, self._read()
        interfaces, channels = self._running.case.interfaces, self._running.case.channels
        grown = {name: after[name] - before[name] for name in ("forwarded", "exceptions", "refused", "unsent")}
        arrived: Tally = after["sink"] - before["sink"]
        whole = [now - then for now, then in zip(after["steady"], before["steady"], strict=True)]
        forwarded, fast = grown["forwarded"], grown["forwarded"] - grown["exceptions"]
        self.told = (
            f"{sent:,} sent, {grown['unsent']:,} of them refused by the full ring of the sender's link;"
            f" {fast:,} forwarded in the kernel, {grown['exceptions']:,} by userspace, {grown['refused']:,} refused"
        )
        compared = [
            ("sent - refused by the ring = forwarded + refused", sent - grown["unsent"], forwarded + grown["refused"]),
            ("repeats and reorderings of channels that stayed = 0", 0, sum(each.backwards for each in whole)),
        ]
        is_redirected = self._running.case.engine == "xdp" and self._frames is not None
        lost = 0
        for number, name in enumerate(self._names):
            if is_redirected:
                taken, refused = (
                    b - a for a, b in zip(*(x["redirected"][number] for x in (before, after)), strict=True)
                )
                compared.append((f"forwarded = xdp_devmap_xmit to {name}", fast, taken + refused))
                lost += refused
                forwarded_by = taken + grown["exceptions"]
            else:
                forwarded_by = forwarded
            if self._running.case.engine in ("xdp", "tc"):  # behind multicast routing trains leave as one packet
                left = after["devices"][number] - before["devices"][number]
                compared.append((f"forwarded = sent by device {name}", forwarded_by, left))
        compared.append(("forwarded by all interfaces = at the sink", forwarded * interfaces - lost, arrived.packets))
        missed = sum(each.missing for each in whole)
        if not (grown["unsent"] or lost):
            due = sum(_share(sent, channels, channel) for channel in range(_STEADY)) * interfaces
            compared.append(("channels that stayed = at the sink", due, sum(each.packets for each in whole)))
        compared.append(
            ("gaps of channels that stayed are of the rings", True, missed <= grown["unsent"] * interfaces + lost)
        )
        wrong = [f"{what}: {wanted:,} against {found:,}" for what, wanted, found in compared if wanted != found]
        return wrong, [what for what, _, _ in compared]


def _share(sent: int, channels: int, channel: int) -> int:
    """Packets of a channel when they are sent in turn."""
    return sent // channels + (channel < sent % channels)


def soak(engine: str, prefix: str, seconds: float, tell: Callable[[str], None], rate: float = 0.0) -> SoakResult:
    """Send at `rate`, or `SHARE` of the rate it keeps up with, have channels join and leave, and look what is left.

    Raises:
        RuntimeError: the engine cannot be had here, or keeps up with no rate.
    """
    case = Case(engine, channels=MOST_FLOWS, interfaces=2)
    with ExitStack() as stack:
        frames = _tracepoint(stack, tell)
        running = stack.enter_context(rig(case, prefix, checks=True))
        _silence(running)
        rate = rate or _rate(running)
        tell(f"{engine}: {rate:,.0f} packets/s for {seconds:.0f} s")
        books = _Books(running, frames)
        running.generator.begin(rate, seconds)
        changes, early = _churn(running, seconds, tell)
        sent = running.generator.end()
        running.sink.settled()
        problems, checked = books.compare(sent.packets)
        tell(books.told)
        late = running.subject.ask("counters")
        problems += _grown(early, late)
        numbers = running.subject.ask("objects")
        problems += _left_over(running)
        running.subject.close()
        problems += outlived(numbers) + left_in_namespace(running.topology.gateway)
    return SoakResult(
        engine,
        seconds,
        sent.packets,
        changes,
        int(early["resident"]),
        int(late["resident"]),
        tuple(problems),
        tuple(checked),
        rate,
        books.told,
        int(late["descriptors"]),
    )


def _grown(early: dict[str, Any], late: dict[str, Any]) -> list[str]:
    """What the agent has more of than it had a tenth into the soak, in words."""
    problems = []
    if late["resident"] > early["resident"] + _GROWTH:
        problems.append(f"the agent grew from {early['resident'] / 1e6:.0f} to {late['resident'] / 1e6:.0f} MB")
    if late["descriptors"] > early["descriptors"]:
        problems.append(f"the agent's open files grew from {early['descriptors']} to {late['descriptors']}")
    return problems


def _rate(running: Rig) -> float:
    best = keep(running, max(run.rate for run in overload(running)))
    if best is None:
        raise RuntimeError(f"{running.case.engine} keeps up with no rate on this machine")
    return SHARE * best.sent.rate


def _tracepoint(stack: ExitStack, tell: Callable[[str], None]) -> Handed | None:
    try:
        return stack.enter_context(handed())
    except OSError as error:
        tell(f"xdp_devmap_xmit is not compared: {error}")
        return None


def _silence(running: Rig) -> None:
    """Nothing else may leave by the interfaces whose statistics are compared."""
    for namespace in (running.topology.gateway, running.topology.host):
        with inside(namespace):
            set_sysctl("net/ipv6/conf/all/disable_ipv6", "1")


def _churn(running: Rig, seconds: float, tell: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
    """Have channels join and leave; how many did, and the agent's counters a tenth into it."""
    chance = random.Random(5)
    joined = set(range(_STEADY, MOST_FLOWS))
    changes = 0
    early: dict[str, Any] = {}
    begun = time.monotonic()
    told = begun
    due = begun
    while (now := time.monotonic()) < begun + seconds:
        numbers = chance.sample(range(_STEADY, _NUMBERS), round(_CHANGES * _STEP))
        leaving = [number for number in numbers if number in joined]
        joining = [number for number in numbers if number not in joined]
        running.subject.ask("remove", channels=leaving)
        running.subject.ask("set", channels=[number for number in joining if number < MOST_FLOWS])
        idle = [number for number in joining if number >= MOST_FLOWS]
        running.subject.ask("set", channels=idle, interfaces=chance.choice(([0], [1], [0, 1])))
        joined = (joined - set(leaving)) | set(joining)
        changes += len(numbers)
        if not early and now > begun + _SETTLED * seconds:
            early = running.subject.ask("counters")
        if now > told + 30:
            told = now
            tell(f"{now - begun:.0f} s, {changes:,} joins and leaves")
        due += _STEP
        time.sleep(max(0.0, due - time.monotonic()))
    return changes, early or running.subject.ask("counters")


def _left_over(running: Rig) -> list[str]:
    """What the engine has after every channel left, and then the tunnel."""
    running.subject.ask("remove", channels=list(range(_NUMBERS)))
    running.subject.ask("remove_tunnel")
    deadline = time.monotonic() + _RETIRED_SECONDS
    while left := {name: count for name, count in running.subject.ask("left").items() if count}:
        if time.monotonic() > deadline:
            break
        time.sleep(_STEP)
    return [f"{count} entries left in {name}" for name, count in left.items()]
