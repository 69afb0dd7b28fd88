"""`make bench`: everything measured in one run, written to docs/bench*.md and docs/bench*.png."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from lab.bench import (
    border,
    border_report,
    engine,
    fast,
    fast_report,
    idle,
    join_latency,
    manager,
    manager_report,
    relay,
    report,
)
from lab.bench.engine_needs import missing_for_engine
from lab.bench.fast_subject import ENGINES
from lab.namespaces import missing_for_namespaces

_FAN_OUTS: Final = (1, 10, 100, 1000)


def _measure_engine(results: report.Results) -> None:
    if missing := missing_for_engine():
        results.left_out.append(f"the gateway's engine: {missing}")
        return
    for case in engine.CASES:
        click.echo(f"  {case.name}")
        results.engine.append(engine.measure(case))


def _measure_relay(results: report.Results) -> None:
    if missing := relay.missing():
        results.left_out.append("the relay: needs " + ", ".join(missing))
        return
    for tunnels in _FAN_OUTS:
        click.echo(f"  full batches, {tunnels} tunnels")
        results.relay.append({"load": "full batches", **relay.full_batches(tunnels)})
    click.echo("  one stream of 1,167 packets/s, 1000 tunnels")
    results.relay.append({"load": "one stream", **relay.everyday()})


def _measure_joins(results: report.Results) -> None:
    if missing := missing_for_namespaces():
        results.left_out.append("joins: needs " + ", ".join(missing))
        return
    results.joins += join_latency.measure()


def _measure_idle(results: report.Results) -> None:
    if missing := missing_for_namespaces():
        results.left_out.append("idle channels: needs " + ", ".join(missing))
        return
    results.idle += idle.measure()


def _measure_manager(results: report.Results) -> None:
    results.manager = manager.measure(manager.Size(), _say)
    results.left_out += results.manager.left_out


def _measure_border(results: report.Results) -> None:
    results.border = border.measure(border.Size(), _say)
    results.left_out += results.border.left_out


def _measure_dataplane(results: report.Results) -> None:
    results.dataplane = fast.measure(_say)
    results.left_out += results.dataplane.left_out


def _say(text: str) -> None:
    click.echo(f"  {text}")


_PARTS: Final[dict[str, Callable[[report.Results], None]]] = {
    "engine": _measure_engine,
    "relay": _measure_relay,
    "joins": _measure_joins,
    "idle": _measure_idle,
    "border": _measure_border,
    "dataplane": _measure_dataplane,
    "manager": _measure_manager,
}


@click.group(invoke_without_command=True)
@click.option("--only", multiple=True, type=click.Choice(list(_PARTS)), help="Measure only this part; may be repeated.")
@click.option("--directory", default="docs", type=click.Path(path_type=Path), show_default=True)
@click.pass_context
def main(context: click.Context, only: tuple[str, ...], directory: Path) -> None:
    """Measure and write bench.md and bench.png; with a command only what it names, to the terminal."""
    if context.invoked_subcommand is not None:
        return
    results = report.Results()
    for name, measure in _PARTS.items():
        if only and name not in only:
            results.left_out.append(f"{name}: not asked for in this run")
            continue
        click.echo(f"measuring {name}")
        measure(results)
    directory.mkdir(exist_ok=True)
    (directory / "bench.md").write_text(report.page(results))
    report.plot(results, directory / "bench.png")
    if results.border is not None:
        click.echo(f"written: {border_report.write(results.border, directory)}")
    if results.dataplane is not None:
        click.echo(f"written: {fast_report.write(results.dataplane, directory)}")
    _tell(report.aims(results))
    click.echo(f"written: {directory / 'bench.md'} and {directory / 'bench.png'}")


_SIZE: Final = manager.Size()


@main.command("manager")
@click.option("--relays", default=_SIZE.relays, show_default=True, type=click.IntRange(20), help="Polled relays.")
@click.option("--tunnels", default=_SIZE.tunnels, show_default=True, type=click.IntRange(0), help="Of each relay.")
@click.option("--interval", default=_SIZE.interval, show_default=True, type=click.IntRange(5), help="Between polls.")
@click.option("--seconds", default=_SIZE.seconds, show_default=True, help="Each stretch; whole intervals are exact.")
def measure_manager(relays: int, tunnels: int, interval: int, seconds: float) -> None:
    """Measure the relay manager alone, at any size, and print the tables."""
    results = manager.measure(manager.Size(relays, tunnels, interval, seconds), _say)
    click.echo("\n" + manager_report.section(results))
    _tell(manager_report.aims(results))


_BORDER_SIZE: Final = border.Size()


@main.command("border")
@click.option("--channels", default=_BORDER_SIZE.channels, show_default=True, type=click.IntRange(100, 19_000))
@click.option("--joins", default=_BORDER_SIZE.joins, show_default=True, type=click.IntRange(10, 2000))
@click.option("--states", default=_BORDER_SIZE.states, show_default=True, type=click.IntRange(1000, 900_000))
@click.option("--directory", default="docs", type=click.Path(path_type=Path), show_default=True)
def measure_border(channels: int, joins: int, states: int, directory: Path) -> None:
    """Measure the border beside PIM routers alone, at any size, and write bench-border.md."""
    results = border.measure(border.Size(channels, joins, states), _say)
    _tell(border_report.aims(results))
    click.echo(f"written: {border_report.write(results, directory)}")


@main.command("dataplane")
@click.option("--full", is_flag=True, help="Every combination, which takes hours.")
@click.option("--quick", is_flag=True, help="The usual case alone, in two or three minutes.")
@click.option("--engine", "engines", multiple=True, type=click.Choice(ENGINES), help="Only this one; may be repeated.")
@click.option("--soak", default=0.0, type=click.FloatRange(0), help="Seconds of joins and leaves under load instead.")
@click.option("--directory", default="docs", type=click.Path(path_type=Path), show_default=True)
def measure_dataplane(full: bool, quick: bool, engines: tuple[str, ...], soak: float, directory: Path) -> None:
    """Measure the fast data planes beside the kernel's forwarding and write bench-dataplane.md, or its soak."""
    if soak:
        results = fast.soak(soak, _say, engines)
        click.echo("\n" + fast_report.soak_section(results))
        if results.soak:
            click.echo(f"written: {fast_report.write_soak(results, directory)}")
    else:
        results = fast.measure(_say, full=full, quick=quick, engines=engines or ENGINES)
        click.echo(f"written: {fast_report.write(results, directory)}")
    _tell(fast_report.aims(results))
    if soak and (results.left_out or any(row.problems for row in results.soak)):
        raise click.ClickException("; ".join(results.left_out) or "not everything adds up")


def _tell(aims: list[manager_report.Aim]) -> None:
    for aim, reached, is_reached in aims:
        click.echo(f"{'reached' if is_reached else 'NOT reached'}: {aim} (measured: {reached})")


if __name__ == "__main__":
    main()
