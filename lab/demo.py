"""`make demo`: a video from a source over our relay, a unicast-only Internet and our agent to a receiver, watched live.

Three channels travel: the video, and one numbered stream of each IP version whose every packet is counted. The video's
receiver and the IPv4 one sit behind two FRR routers, whose PIM Joins the border turns into AMT; the IPv6 one is a host
on a LAN of the border itself, because Debian's FRR has no PIM for IPv6. Meanwhile the relay manager configures that
relay, a simulated MX80 and a simulated IOS-XE, and shows their tunnels. The demonstration ends by itself without a
terminal, and says by its exit status whether everything arrived whole.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live

from lab import topology, video
from lab.demo_domain import RoutedDomain
from lab.demo_manager import ManagedRelays
from lab.demo_view import Snapshot, render, summary
from lab.frr import missing_for_frr
from lab.namespaces import Lab, LabError, missing_for_namespaces, stop
from lab.scenario import Counting, Scenario
from lab.topology import Topology

OUTPUT: Final = Path("demo-output")
_UNATTENDED_SECONDS: Final = 60.0
_LEAST_WATCHED_SECONDS: Final = 10.0
_NUMBERED_RATE: Final = 500
_NUMBERED: Final = {"IPv4": topology.NUMBERED_GROUP_IPV4, "IPv6": topology.SSM_GROUP_IPV6}
_VIDEO_RECEIVER, _HOST, _COUNTER = 0, 1, 2  # receivers by number; the host sits on LAN 1, the others behind the routers
_ROUTERS: Final = 2


def run() -> int:
    """Run the demonstration; the exit status."""
    console = Console()
    missing = missing_for_namespaces()
    if missing:
        console.print("left out: the whole demonstration, which needs " + ", ".join(missing))
        return 1
    has_video = shutil.which("ffmpeg") is not None
    if not has_video:
        console.print("left out: the video, which needs the program ffmpeg; the counted streams stand in for it")
    missing = missing_for_frr()
    if missing:
        console.print("left out: the domain's routers, which need " + ", ".join(missing) + "; receivers join with IGMP")
    OUTPUT.mkdir(exist_ok=True)
    names = Topology(receivers=3, downstreams=2, routed=0 if missing else _ROUTERS)
    with tempfile.TemporaryDirectory(prefix="isl-demo-") as directory, Lab(names) as lab:
        demonstration = Demonstration(lab, Path(directory), console, has_video=has_video)
        with demonstration.started():
            demonstration.manage()
            demonstration.watch(_seconds(console))
            return demonstration.verdict()


def _seconds(console: Console) -> float | None:
    """How long to run; None is until Ctrl-C."""
    if text := os.environ.get("DEMO_SECONDS"):
        return float(text)
    return None if console.is_terminal else _UNATTENDED_SECONDS


class Demonstration:
    """Agents, sources and receivers in a lab."""

    def __init__(self, lab: Lab, directory: Path, console: Console, *, has_video: bool) -> None:
        self._lab = lab
        self._console = console
        self._has_video = has_video
        discovery = [str(topology.DISCOVERY.ipv4), str(topology.DISCOVERY.ipv6)]
        self._scenario = Scenario(lab, directory, relay={"discovery_address": discovery})
        self._domain = RoutedDomain(lab, directory) if lab.topology.routed else None
        self._managed = ManagedRelays(directory, self._scenario.relay.place.socket, console)
        self._frame = OUTPUT / "frame.png"
        self._video_log = OUTPUT / "receiver.log"
        self._counted: list[Counting] = []
        self._started = time.monotonic()
        self._viewer: subprocess.Popen[str] | None = None

    def started(self) -> ExitStack:
        """Start everything; leaving the result ends it and keeps the agents' logs.

        Raises:
            LabError: an agent did not become ready.
        """
        stack = ExitStack()
        try:
            for agent in (self._scenario.relay, self._scenario.border):
                agent.place.log.touch()
                stack.callback(shutil.copy, agent.place.log, OUTPUT)
            stack.callback(self._managed.close)
            stack.enter_context(self._scenario)
            if self._domain is not None:
                stack.enter_context(self._domain)
                self._domain.wait_for_neighbors()
            self._frame.unlink(missing_ok=True)
            if self._has_video:
                self._start_video(stack)
            for family, group in _NUMBERED.items():
                self._scenario.send(group, "--rate", str(_NUMBERED_RATE))
                self._count(f"numbered {family}", group, _COUNTER if family == "IPv4" else _HOST)
        except BaseException:
            stack.close()
            raise
        return stack

    def manage(self) -> None:
        """Show what the manager does with three relays, one of them carrying the streams.

        Raises:
            LabError: something went otherwise than it should.
        """
        self._managed.start()
        self._managed.tell()

    def _start_video(self, stack: ExitStack) -> None:
        names, group, source = self._lab.topology, ip_address(topology.SSM_GROUP_IPV4), topology.SOURCE.ipv4
        log = stack.enter_context((OUTPUT / "source.log").open("w"))
        stack.callback(stop, video.start_source(self._lab, group, source, log))
        log = stack.enter_context(self._video_log.open("w"))
        viewer, local = names.receiver(_VIDEO_RECEIVER), names.receiver_address(_VIDEO_RECEIVER).ipv4
        self._viewer = video.start_receiver(self._lab, viewer, source, group, local, self._frame, log)
        self._count("video", topology.SSM_GROUP_IPV4, _COUNTER)

    def _count(self, label: str, group: str, receiver: int) -> None:
        self._counted.append(self._scenario.receive(group, "--every", "1", receiver=receiver, label=label))

    def watch(self, seconds: float | None) -> None:
        """Show the live tables until `seconds` since the start are over, but for a while, or until Ctrl-C."""
        end = None if seconds is None else max(self._started + seconds, time.monotonic() + _LEAST_WATCHED_SECONDS)
        snapshot = self._snapshot(None)
        try:
            if not self._console.is_terminal:
                self._report_lines(end)
                return
            with Live(self._tables(snapshot), console=self._console, auto_refresh=False) as live:
                while end is None or time.monotonic() < end:
                    time.sleep(1.0)
                    snapshot = self._snapshot(snapshot)
                    live.update(self._tables(snapshot), refresh=True)
        except KeyboardInterrupt:
            pass

    def _tables(self, snapshot: Snapshot) -> RenderableType:
        return Group(self._managed.table(), render(snapshot))

    def _report_lines(self, end: float | None) -> None:
        """For a log file: one line of each channel every ten seconds."""
        snapshot = self._snapshot(None)
        while end is not None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 10.0))
            snapshot = self._snapshot(snapshot)
            for line in summary(snapshot):
                self._console.print(line, soft_wrap=True, highlight=False)

    def _snapshot(self, before: Snapshot | None) -> Snapshot:
        relay, border = self._scenario.relay, self._scenario.border
        counted = {item.label: item.figures for item in self._counted}
        return Snapshot(
            time.monotonic(),
            relay.get("tunnels")["items"],
            border.get("tunnels")["items"],
            border.channels(),
            counted,
            before,
            border.get("neighbors")["items"],
            self._domain.channels() if self._domain is not None else [],
        )

    def verdict(self) -> int:
        """End the receivers, before the sources, and judge: 0 when everything arrived whole."""
        whole = True
        for counted in self._counted:
            counted.finish()
            whole &= counted.is_whole()
            self._console.print(_sentence(counted), highlight=False, soft_wrap=True)
        if self._viewer is not None:
            stop(self._viewer)
            damaged = video.damage(self._video_log.read_text())
            decoded = video.decodes(self._frame)
            whole &= damaged == 0 and decoded
            state = "decodes" if decoded else "does not decode"
            self._console.print(f"receiver: {damaged} reports of damage; {self._frame} {state}", highlight=False)
        self._console.print("the stream arrived whole" if whole else "the stream did NOT arrive whole")
        return 0 if whole else 1


def _sentence(counted: Counting) -> str:
    figures = counted.figures
    if not figures.get("received"):
        return f"{counted.label}: nothing arrived"
    return (
        f"{counted.label}: {figures['received']} packets, {figures['lost']} lost, {figures['continuity_errors']} "
        f"continuity errors, first packet {figures['join_seconds'] * 1000:.0f} ms after the join"
    )


def main() -> int:
    """Run, and tell the lab's errors in one line."""
    try:
        return run()
    except (LabError, httpx.TransportError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
