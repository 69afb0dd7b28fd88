"""The page of the fast data planes: aims, a table per question, a plot."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from lab.bench.fast_guest import GuestRatio
from lab.bench.fast_joins import Joins
from lab.bench.fast_latency import RATE, Latency
from lab.bench.fast_relay import KERNEL, USERSPACE_RELAY, RelayFigures
from lab.bench.fast_rig import Case
from lab.bench.fast_search import FULL, LIGHT_RATE, SECONDS, TOLERANCE, TRIES, Figures
from lab.bench.fast_soak import SoakResult
from lab.bench.fast_subject import NATIVE, NATIVE_MERGING
from lab.bench.tables import table

Aim = tuple[str, str, bool]
"""What was aimed at, what was reached, whether that is it."""

XDP_RATE: Final = 4.0
TC_COST: Final = 0.65
RELAY_RATE: Final = 1e6
RELAY_COST: Final = 0.5
JOIN_SECONDS: Final = 300e-6
_QUIET_LOAD: Final = 0.5
_ROUTED: Final = (NATIVE, NATIVE_MERGING, "xdp-mfc", "userspace")
_IDLE: Final = 0.6  # busy less than this while packets are lost: it stood still
_RCU_LIMIT: Final = Path("/sys/module/rcutree/parameters/rcu_resched_ns")
_PAGE: Final = "bench-dataplane.md"
_SOAK_HEADING: Final = "## Soak\n\n"
_SOAK_SECTION: Final = re.compile(r"^## Soak\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BASE: Final = tuple(Case(NATIVE, version=version) for version in (4, 6))
_SHOWN: Final = {
    NATIVE: "native multicast routing",
    NATIVE_MERGING: "native, rx-udp-gro-forwarding",
    "xdp": "xdp",
    "xdp-mfc": "xdp-mfc",
    "tc": "tc",
    "userspace": "userspace",
}
_METHOD: Final = (
    "The sender makes packets in the kernel on a core of its own, 32 at once, evenly; everything the gateway does runs"
    " on the other core: the uplink's receive processing (threaded NAPI), what follows from it up to the first steps of"
    " the sink, and the agent. Every engine gets the same and waits in the same ring of 256 packets. The links are veth"
    " pairs, there is no network card: trust ratios, not figures. The sink counts and drops in XDP for engines that"
    " send frames, in TC for those that send socket buffers, whichever is cheaper; either runs on the measured core and"
    " is in the figures, as is everything the engine checks and counts. Native packets come without Don't Fragment,"
    " because multicast routing drops trains that have it; tunnelled ones have it, as Linux senders set it, and all"
    " carry checksums. A route for 224.0.0.0/4 names each downstream interface, which spares multicast routing one of"
    " the two route entries it makes for each packet."
)
_FIGURES: Final = (
    "One core: packets/s forwarded by a core that is offered more than it can do, at the load at which it forwards"
    " most. CPU: what ran on that core then, per packet forwarded to all its interfaces, the best and the median of"
    f" {FULL} runs of {SECONDS:g} s. These two do not depend on how long packets may wait, and are what the aims are"
    f" about. Light: CPU per packet at {LIGHT_RATE:,.0f} packets/s over all interfaces, with a wake-up for every burst."
    f" Kept up: the highest rate tried at which no more than {TOLERANCE:.1%} were lost, of {TRIES} tries, and how busy"
    " the core was at it. An engine that loses packets while its core has time to spare stands still for longer than"
    " the ring lasts."
)


@dataclass(slots=True)
class DataplaneResults:
    """Everything one run measured; what was left out is empty.

    Attributes:
        figures: of every case.
        latencies: of every engine.
        joins: of every engine of tunnels.
        relay: of the relay's planes.
        guest: the kernel's own AMT gateway in the guest.
        soak: a long time of joins and leaves under load.
        machine_load: of the machine before it began, over one minute.
        left_out: what could not be measured, and why.
    """

    figures: list[Figures] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    joins: list[Joins] = field(default_factory=list)
    relay: list[RelayFigures] = field(default_factory=list)
    guest: GuestRatio | None = None
    soak: list[SoakResult] = field(default_factory=list)
    machine_load: float = 0.0
    left_out: list[str] = field(default_factory=list)

    def of(self, case: Case) -> Figures | None:
        """The figures of a case."""
        return next((each for each in self.figures if each.case == case), None)


def aims(results: DataplaneResults) -> list[Aim]:
    """Each aim whose figure was measured."""
    found = [aim for base in _BASE for aim in _gateway_aims(results, base)]
    found += _relay_aims(results)
    for row in results.joins:
        if row.engine != "userspace":
            p99 = row.percentile(0.99)
            what = f"{row.engine}: join beside {row.beside:,} channels, p99 under {JOIN_SECONDS * 1e6:.0f} µs"
            found.append((what, f"{p99 * 1e6:.0f} µs", p99 < JOIN_SECONDS))
    for soak in results.soak:
        what = (
            f"{soak.engine}: {soak.seconds:.0f} s of joins and leaves under load leave nothing, every packet is counted"
        )
        found.append((what, "; ".join(soak.problems) or "nothing left, all accounted for", not soak.problems))
    return found


def _gateway_aims(results: DataplaneResults, base: Case) -> list[Aim]:
    native, merging = results.of(base), results.of(base.of(NATIVE_MERGING))
    xdp, tc = results.of(base.of("xdp")), results.of(base.of("tc"))
    found: list[Aim] = []
    name = f"IPv{base.version}, {base.channels} channels"
    if native and xdp:
        ratio = xdp.most / native.most
        what = f"xdp, {name}: at least {XDP_RATE:g} times the packets/s of native routing on one core"
        found.append((what, f"{ratio:.2f} times", ratio >= XDP_RATE))
        ratio = native.nanoseconds / xdp.nanoseconds
        what = f"xdp, {name}: at most 1/{XDP_RATE:g} of the CPU per packet of native routing"
        found.append((what, f"1/{ratio:.2f}", ratio >= XDP_RATE))
    if merging and xdp:
        ahead = xdp.most > merging.most and xdp.nanoseconds < merging.nanoseconds
        what = f"xdp, {name}: ahead of native with rx-udp-gro-forwarding in packets/s and CPU"
        reached = (
            f"{xdp.most:,.0f} to {merging.most:,.0f} packets/s, {xdp.nanoseconds:,.0f} to {merging.nanoseconds:,.0f} ns"
        )
        found.append((what, reached, ahead))
    if native and tc:
        ratio = tc.nanoseconds / native.nanoseconds
        what = f"tc, {name}: at most {TC_COST:g} times the CPU of native routing"
        found.append((what, f"{ratio:.2f} times", ratio <= TC_COST))
    return found


def _relay_aims(results: DataplaneResults) -> list[Aim]:
    found: list[Aim] = []
    for row in results.relay:
        if row.plane == KERNEL and row.tunnels == 100 and row.is_flood:
            rate = row.tunnel_packets_per_second
            what = "relay, 100 tunnels: above 1,000,000 tunnel packets/s at a counting sink"
            found.append((what, f"{rate:,.0f}", rate > RELAY_RATE))
    stream = {row.plane: row for row in results.relay if row.tunnels == 1000 and not row.is_flood}
    if {KERNEL, USERSPACE_RELAY} <= stream.keys():
        ratio = stream[KERNEL].nanoseconds / stream[USERSPACE_RELAY].nanoseconds
        what = f"relay, one stream to 1,000 tunnels: at most {RELAY_COST:g} times the CPU of userspace"
        found.append((what, f"{ratio:.2f} times", ratio <= RELAY_COST))
    return found


def page(results: DataplaneResults, soak: str = "") -> str:
    """The whole page; `soak` is the section of an earlier soak, which takes a while and is run by itself."""
    where = f"{os.cpu_count()} cores of {_processor()}, Linux {platform.release()}, Python {platform.python_version()}"
    made = f"Made by `make bench`, or alone by `python -m lab.bench dataplane`, on {where}. {_METHOD}{_shared(results)}"
    parts = ["# Fast data planes: what was measured\n", made + "\n", "![The same as a plot](bench-dataplane.png)\n"]
    sections: tuple[Callable[[DataplaneResults], str], ...] = (
        *(_aims, _gateway, _kernel_gateway, _latency, _joins, _relay, soak_section),
    )
    parts += [text for make in sections if (text := make(results))]
    if soak:
        parts.append(soak.rstrip() + "\n")
    if results.left_out:
        parts.append("## Left out\n\n" + "\n".join(f"- {reason}" for reason in results.left_out) + "\n")
    return "\n".join(parts)


def write(results: DataplaneResults, directory: Path) -> Path:
    """Write page and plot; where the page is."""
    path = directory / _PAGE
    older = _SOAK_SECTION.search(path.read_text()) if path.exists() and not results.soak else None
    path.write_text(page(results, older.group() if older else ""))
    plot(results, directory / "bench-dataplane.png")
    return path


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(named, platform.machine())


def _shared(results: DataplaneResults) -> str:
    if results.machine_load < _QUIET_LOAD:
        return ""
    return (
        f" **Other programs shared the machine** (load {results.machine_load:.1f} when it began): rates that are"
        " kept up and the tails of latency are theirs too."
    )


def _aims(results: DataplaneResults) -> str:
    rows = [[aim, reached, "yes" if is_reached else "**no**"] for aim, reached, is_reached in aims(results)]
    return "## Aims\n\n" + table(("aim", "measured", "reached"), rows) if rows else ""


def _titled(case: Case) -> str:
    many = "interface" if case.interfaces == 1 else "interfaces"
    channels = "channel" if case.channels == 1 else "channels"
    return f"IPv{case.version}, {case.channels} {channels}, {case.interfaces} {many}, {case.size} octets"


def _gateway(results: DataplaneResults) -> str:
    parts = []
    for case in dict.fromkeys(each.case.of(NATIVE) for each in results.figures):
        rows = [_gateway_row(results, each) for each in results.figures if each.case.of(NATIVE) == case]
        headings = (
            *("gateway", "CPU ns a packet", "median", "to native", "packets/s of one core", "to native"),
            *("CPU ns, light", "packets/s kept up", "core busy then"),
        )
        parts.append(f"### {_titled(case)}\n\n" + table(headings, rows))
    return f"## Gateway\n\n{_FIGURES}{_standstill(results)}\n\n" + "\n".join(parts) if parts else ""


def _gateway_row(results: DataplaneResults, row: Figures) -> list[str]:
    native = results.of(row.case.of(NATIVE))
    cost = rate = "-"
    if native and native is not row:
        cost, rate = f"{row.nanoseconds / native.nanoseconds:.2f}", f"{row.most / native.most:.2f}"
    return [
        _SHOWN[row.case.engine],
        f"{row.nanoseconds:,.0f}",
        f"{row.median_nanoseconds:,.0f}",
        cost,
        f"{row.most:,.0f}",
        rate,
        f"{row.light_nanoseconds:,.0f}",
        f"{row.kept:,.0f}" if row.kept else "-",
        f"{row.busy:.0%}" if row.kept else "-",
    ]


def _standstill(results: DataplaneResults) -> str:
    """Why multicast routing loses packets early, where it did in this run."""
    early = [row for row in results.figures if row.case.engine in _ROUTED and row.kept and row.busy < _IDLE]
    if not early or not _RCU_LIMIT.exists():
        return ""
    milliseconds = int(_RCU_LIMIT.read_text()) / 1e6
    engines = " and ".join(_SHOWN[name] for name in dict.fromkeys(row.case.engine for row in early))
    return (
        f" Here that befell {engines}: multicast routing makes route entries packet by packet and frees them by RCU, up"
        f" to {milliseconds:g} ms at a stretch (rcutree.rcu_resched_ns) in which a core receives nothing. A network"
        " card's ring of thousands would bridge that, so no aim is about the rate that is kept up."
    )


def _kernel_gateway(results: DataplaneResults) -> str:
    row = results.guest
    if row is None:
        return ""
    text = (
        f"The kernel's own AMT gateway, Linux {row.release} as User Mode Linux with one slow CPU: only the ratio means"
        " anything. Sender, router and sink share that CPU; what sender and sink cost alone is taken off.\n\n"
    )
    cells = [
        ["native multicast routing", f"{row.native * 1e6:.1f} µs", "-"],
        ["the kernel's AMT gateway, then the same", f"{row.gateway * 1e6:.1f} µs", f"{row.ratio:.2f}"],
    ]
    return "## The kernel's AMT gateway\n\n" + text + table(("in the guest", "a packet", "to native"), cells)


def _latency(results: DataplaneResults) -> str:
    if not results.latencies:
        return ""
    native = {row.case.of(NATIVE): row for row in results.latencies if row.case.engine == NATIVE}
    rows = []
    for row in results.latencies:
        base = native.get(row.case.of(NATIVE))
        added = ["-"] * len(row.nanoseconds)
        if base is not None and base is not row:
            added = [f"{(a - b) / 1e3:+.1f} µs" for a, b in zip(row.nanoseconds, base.nanoseconds, strict=True)]
        shown = [f"{each / 1e3:.1f} µs" for each in row.nanoseconds]
        name = f"{_SHOWN[row.case.engine]}, IPv{row.case.version}"
        rows.append([name, *shown, *added, f"{row.lost / max(1, row.sent):.4%}"])
    text = (
        f"{RATE:,.0f} packets/s, evenly, one at a time; from the sender's program to the sink's, the same clock, known"
        " to 3 %. Each figure is the best of three runs. Of a train the first packet's time counts, the longest.\n\n"
    )
    headings = ("gateway", "p50", "p99", "p99.9", "p50 to native", "p99", "p99.9", "lost")
    return "## Latency\n\n" + text + table(headings, rows)


def _joins(results: DataplaneResults) -> str:
    rows = [
        [
            f"{_SHOWN[row.engine]}, beside {row.beside:,} channels",
            *(f"{row.percentile(share) * 1e6:.0f} µs" for share in (0.5, 0.99, 1.0)),
        ]
        for row in results.joins
    ]
    text = "`set_channel` of the engine: the kernel's route and the maps of the programs, one channel at a time.\n\n"
    return "## Joins\n\n" + text + table(("engine", "p50", "p99", "longest"), rows) if rows else ""


def _relay(results: DataplaneResults) -> str:
    rows = [
        [
            f"{row.plane}, {'full speed' if row.is_flood else 'one stream'}, {row.tunnels:,} tunnels",
            f"{row.tunnel_packets_per_second:,.0f}",
            f"{row.nanoseconds:,.0f}",
            f"{row.cpu_share:.0%}",
            f"{row.loss:.2%}",
        ]
        for row in results.relay
    ]
    text = (
        "The relay's core has receive processing of the native link and the process. At full speed it has the sink's"
        " too, in all figures; beside the one stream (1,167 packets/s of 1316 octets) the sink is on the sender's core,"
        " and a veth's ring of 256 packets loses what comes while that core is busy. Trains are cut before they leave."
        " Bare copies are what the kernel's helper (`bpf_clone_redirect`) costs with nothing written into them: it"
        " copies the linear part of the packet each time, lest a program that writes changes the copy made before."
        " No program that copies so can cost less.\n\n"
    )
    headings = ("relay", "tunnel packets/s at the sink", "CPU ns a tunnel packet", "of one core", "loss")
    return "## Relay\n\n" + text + table(headings, rows) if rows else ""


def soak_section(results: DataplaneResults) -> str:
    """The soak's table; empty when there was none."""
    rows = [
        [
            row.engine,
            f"{row.seconds:,.0f} s",
            f"{row.rate:,.0f}",
            f"{row.changes:,}",
            f"{row.resident_before / 1e6:.0f} to {row.resident_after / 1e6:.0f} MB",
            row.told,
            "; ".join(row.problems) or "none",
        ]
        for row in results.soak
    ]
    if not rows:
        return ""
    checked = "".join(f"- {row.engine}: {what}\n" for row in results.soak for what in row.checked)
    text = (
        "At 90 % of the rate that is kept up channels join and leave at 100/s, 64 carry packets to 2 interfaces, 48 of"
        " them throughout. Every packet has to be accounted for, exactly; afterwards the maps have no channel and no"
        " tunnel, no counter or set of interfaces is taken, the agent has no more files open and not 16 MB more memory"
        " than a tenth into it; after its end the kernel has no route, map, program, link, filter or interface of it."
        " What a full ring of the sender's own link refused never came to the gateway. Made by"
        " `python -m lab.bench dataplane --soak SECONDS`.\n\n"
    )
    headings = ("engine", "time", "packets/s", "joins and leaves", "resident", "packets", "problems")
    return _SOAK_HEADING + text + table(headings, rows) + f"\nCompared:\n\n{checked}"


def write_soak(results: DataplaneResults, directory: Path) -> Path:
    """Put the soak's section into the page that is there; where it is."""
    path = directory / _PAGE
    whole = path.read_text() if path.exists() else "# Fast data planes: what was measured\n"
    before, after = whole, ""
    if found := _SOAK_SECTION.search(whole):
        before, after = whole[: found.start()], whole[found.end() :]
    elif "## Left out\n" in whole:
        before, _, after = whole.partition("## Left out\n")
        after = "## Left out\n" + after
    path.write_text(f"{before.rstrip()}\n\n{soak_section(results).rstrip()}\n\n{after}".rstrip() + "\n")
    return path


def plot(results: DataplaneResults, path: Path) -> None:
    """Bars of every engine: CPU a packet and packets/s of the cases, and latency."""
    figure = Figure(figsize=(14, 10))
    axes = figure.subplots(2, 2).flat
    cases = list(dict.fromkeys(each.case.of(NATIVE) for each in results.figures))
    engines = list(dict.fromkeys(each.case.engine for each in results.figures))
    names = [_titled(case).replace(", ", ",\n", 1) for case in cases]
    shown: tuple[tuple[str, Callable[[Figures], float]], ...] = (
        ("CPU ns a packet", lambda row: row.nanoseconds),
        ("Million packets/s of one core", lambda row: row.most / 1e6),
        (f"Million packets/s kept up, {TOLERANCE:.1%} lost at most", lambda row: row.kept / 1e6),
    )
    for axis, (title, pick) in zip(axes, shown, strict=False):
        height = 0.8 / max(1, len(engines))
        for number, engine in enumerate(engines):
            found = [results.of(case.of(engine)) for case in cases]
            values = [pick(row) if row else 0.0 for row in found]
            axis.barh([place + number * height for place in range(len(cases))], values, height, label=_SHOWN[engine])
        axis.set_title(title)
        axis.set_yticks([place + 0.4 - height / 2 for place in range(len(cases))], names, fontsize=7)
        axis.invert_yaxis()
        if engines:
            axis.legend(fontsize=7)
    for row in results.latencies:
        label = f"{_SHOWN[row.case.engine]}, IPv{row.case.version}"
        axes[3].plot(("p50", "p99", "p99.9"), [each / 1e3 for each in row.nanoseconds], marker="o", label=label)
    axes[3].set(title=f"Latency at {RATE:,.0f} packets/s, µs", yscale="log")
    if results.latencies:
        axes[3].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
