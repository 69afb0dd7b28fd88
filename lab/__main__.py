"""`python -m lab`: the lab's programs."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TextIO

import click

from agent.protocol.channels import Channel
from lab.debian_kernel import machine
from lab.faulty_relay import FaultyRelay
from lab.kernel_amt import guest
from lab.measure import Measurement, receive
from lab.namespaces import Lab, LabError, delete_namespaces
from lab.topology import DEFAULT_PREFIX, PAYLOAD_PORT, Topology
from lab.traffic import Stream, send


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@click.group()
def main() -> None:
    """Topologies of network namespaces, traffic, faults and peers."""
    signal.signal(signal.SIGTERM, _interrupt)  # a stopped lab cleans up as an interrupted one does


@main.command("up")
@click.option("--prefix", default=DEFAULT_PREFIX, show_default=True)
@click.option("--downstreams", default=1, show_default=True)
@click.option("--receivers", default=1, show_default=True)
def up_command(prefix: str, downstreams: int, receivers: int) -> None:
    """Make the topology and keep it until Ctrl-C."""
    with Lab(Topology(prefix=prefix, downstreams=downstreams, receivers=receivers)) as lab:
        click.echo("namespaces: " + " ".join(lab.topology.namespaces))
        click.echo("enter one with: ip netns exec NAME bash; Ctrl-C removes them")
        try:
            signal.pause()
        except KeyboardInterrupt:
            click.echo("removing the lab")


@main.command("down")
@click.option("--prefix", default=DEFAULT_PREFIX, show_default=True)
@click.option("--quiet", is_flag=True)
def down_command(prefix: str, quiet: bool) -> None:
    """Remove what a killed lab left."""
    removed = delete_namespaces(prefix)
    if not quiet:
        click.echo("removed: " + (" ".join(removed) or "nothing"))


@main.command("send")
@click.argument("group")
@click.option("--port", default=PAYLOAD_PORT, show_default=True)
@click.option("--interface")
@click.option("--rate", default=1000.0, show_default=True, help="packets per second")
@click.option("--size", default=1316, show_default=True, help="UDP payload in bytes")
@click.option("--seconds", type=float)
@click.option("--hops", default=32, show_default=True)
@click.option("--first-sequence", default=0, show_default=True)
def send_command(
    *,
    group: str,
    port: int,
    interface: str | None,
    rate: float,
    size: int,
    seconds: float | None,
    hops: int,
    first_sequence: int,
) -> None:
    """Send numbered, timestamped packets to GROUP; prints what was sent as JSON."""
    stream = Stream(ip_address(group), port, interface, rate, size, seconds, hops, first_sequence)
    click.echo(json.dumps({"sent": send(stream), "first_sequence": first_sequence}))


@main.command("receive")
@click.argument("source")
@click.argument("group")
@click.option("--port", default=PAYLOAD_PORT, show_default=True)
@click.option("--interface", required=True)
@click.option("--seconds", type=float, help="stop after this long")
@click.option("--packets", type=int, help="stop after this many")
@click.option("--idle", type=float, help="stop when nothing came for this long after the first packet")
@click.option("--every", type=float, help="print a JSON line this often while receiving")
def receive_command(
    *,
    source: str,
    group: str,
    port: int,
    interface: str,
    seconds: float | None,
    packets: int | None,
    idle: float | None,
    every: float | None,
) -> None:
    """Join SOURCE (or `*`) and GROUP, count, and print loss, reorder and latency as JSON; fails if nothing came."""

    def show(measurement: Measurement) -> None:
        click.echo(json.dumps(measurement.report()))

    channel = Channel.parse(source, group)
    result = receive(
        channel, port, interface, seconds=seconds, packets=packets, idle_seconds=idle, every=every, progress=show
    )
    show(result)
    sys.exit(0 if result.received else 1)


@main.command("faulty-relay")
@click.option("--address", required=True, help="where gateways find the relay")
@click.option("--relay", required=True, help="the real relay")
@click.option("--stranger", required=True, help="the address of the fault other_address")
@click.option("--control", required=True, type=click.Path(path_type=Path), help="Unix socket that takes the faults")
def faulty_relay_command(address: str, relay: str, stranger: str, control: Path) -> None:
    """Stand between gateways and a relay, and spoil what the control socket asks for."""
    FaultyRelay(ip_address(address), ip_address(relay), ip_address(stranger), control).run()


@main.command("demo")
def demo_command() -> None:
    """Carry a video from source to receiver and show it live."""
    from lab import demo  # noqa: PLC0415 - see `_Simulators`

    sys.exit(demo.main())


class _Simulators(click.Group):
    """Imports the simulators when they are asked for: a sender in a small guest has no time for SSH libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the simulators."""
        return self._group().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        return self._group().get_command(ctx, cmd_name)

    @staticmethod
    def _group() -> click.Group:
        from lab.sim.command import sim_group  # noqa: PLC0415

        return sim_group


@main.group("sim", cls=_Simulators)
def sim_command() -> None:
    """Simulated routers on real SSH, for evaluation and tests; never put one on a public address."""


@main.group("kernel-amt")
def kernel_amt_group() -> None:
    """The Linux kernel's AMT relay and gateway in User Mode Linux."""


@main.group("debian-kernel")
def debian_kernel_group() -> None:
    """Debian's own kernel, as routers run it, under QEMU."""


_optional = click.option("--optional", is_flag=True, help="say what is missing instead of failing")


def _build(build: Callable[[], None], *, optional: bool) -> None:
    try:
        build()
    except LabError as error:
        if not optional:
            raise
        click.echo(f"left out: {error}", err=True)


@kernel_amt_group.command("build")
@_optional
def kernel_amt_build(*, optional: bool) -> None:
    """Build the guest from Debian's packages unless it is there."""
    _build(guest.build, optional=optional)


@debian_kernel_group.command("build")
@_optional
def debian_kernel_build(*, optional: bool) -> None:
    """Fetch the kernel from Debian's packages unless it is there."""
    _build(machine.build, optional=optional)


@debian_kernel_group.command("run")
@click.argument("script", type=click.File())
@click.option("--seconds", default=300.0, show_default=True)
def debian_kernel_run(script: TextIO, seconds: float) -> None:
    """Run SCRIPT on the kernel; prints its output and ends with its status."""
    ended = machine.run_script(script.read(), seconds=seconds)
    click.echo(ended.files.get("log", ""), nl=False)
    if ended.status is None:
        raise LabError(f"the guest died:\n{ended.files.get('console', '')[-2000:]}")
    sys.exit(ended.status)


@kernel_amt_group.command("run")
@click.argument("script", type=click.File())
@click.option("--seconds", default=300.0, show_default=True)
def kernel_amt_run(script: TextIO, seconds: float) -> None:
    """Run SCRIPT in the guest, joined to the lab's Internet; prints its output and ends with its status."""
    with Lab() as lab, guest.Guest(lab, lab.topology.internet, script.read()) as booted:
        status = booted.finish(seconds)
        click.echo(booted.read("log"), nl=False)
    sys.exit(status)


def run() -> None:
    """Entry point: errors of the lab are told in one line."""
    try:
        main()
    except LabError as error:
        raise SystemExit(f"lab: {error}") from error


if __name__ == "__main__":
    run()
