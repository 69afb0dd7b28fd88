"""`make bench`: everything measured in one run, written to docs/bench.md and docs/bench.png."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from lab.bench import engine, idle, join_latency, relay, report
from lab.bench.engine_needs import missing_for_engine
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


_PARTS: Final[dict[str, Callable[[report.Results], None]]] = {
    "engine": _measure_engine,
    "relay": _measure_relay,
    "joins": _measure_joins,
    "idle": _measure_idle,
}


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(_PARTS)), help="Measure only this part; may be repeated.")
@click.option("--directory", default="docs", type=click.Path(path_type=Path), show_default=True)
def main(only: tuple[str, ...], directory: Path) -> None:
    """Measure and write bench.md and bench.png."""
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
    for aim, reached, is_reached in report.aims(results):
        click.echo(f"{'reached' if is_reached else 'NOT reached'}: {aim} (measured: {reached})")
    click.echo(f"written: {directory / 'bench.md'} and {directory / 'bench.png'}")


if __name__ == "__main__":
    main()
