"""The command `doctor`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from agent.cli.client import EXIT_REFUSED, print_json
from agent.cli.tables import console


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="AMT_AGENT_CONFIG",
    help="Configuration to check the host for.  [default: /etc/isthmus/agent.toml, if it is there]",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(path: Path | None, as_json: bool) -> None:
    """Check this host before the agent is blamed; changes nothing.

    Kernel features, who owns the multicast routing socket, reverse-path filtering, MTU, firewall, offloads, clock,
    names, capabilities, routes to the relays, which fast plane each interface could carry. Root sees more.

    \b
    Exit status: 0 nothing failed; 1 something did.
    """
    from agent.service.doctor import Verdict, examine  # noqa: PLC0415 only this command needs it

    findings = examine(path)
    if as_json:
        print_json([finding.model_dump(mode="json") for finding in findings])
    else:
        colors = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red", Verdict.UNKNOWN: "blue"}
        output = console()
        for finding in findings:
            line = Text(f"{finding.verdict.value:<8}", style=colors[finding.verdict])
            line.append(finding.name, style="bold").append(f": {finding.seen}", style="default")
            output.print(line, soft_wrap=True)
            if finding.advice:
                output.print(Text(f"        {finding.advice}"), soft_wrap=True)
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise SystemExit(EXIT_REFUSED)
