"""Commands that ask something of the agent: join, leave, joins, drain."""

from __future__ import annotations

import click

from agent.cli.client import AgentClient, agent_options, print_json
from agent.cli.observe import as_json
from agent.cli.tables import print_table
from agent.protocol.channels import Channel

_interface = click.option("--interface", help="Downstream interface to forward to.  [default: all of them]")


@click.command()
@click.argument("source")
@click.argument("group")
@_interface
@agent_options
def join(client: AgentClient, source: str, group: str, interface: str | None) -> None:
    """Want the channel (SOURCE,GROUP) until `leave`; SOURCE may be * for any source.

    Kept across restarts of the agent.

    \b
    Examples:
      amt-agent join 198.51.100.7 232.1.1.1
      amt-agent join '*' 239.1.1.1 --interface eth1
    """
    client.send("POST", "joins", _document(source, group, interface))
    click.echo(f"joined ({source},{group})")


@click.command()
@click.argument("source")
@click.argument("group")
@_interface
@agent_options
def leave(client: AgentClient, source: str, group: str, interface: str | None) -> None:
    """End what `join` with the same arguments began.

    \b
    Example:
      amt-agent leave 198.51.100.7 232.1.1.1
    """
    client.send("DELETE", "joins", _document(source, group, interface))
    click.echo(f"left ({source},{group})")


@click.command()
@as_json
@agent_options
def joins(client: AgentClient, as_json: bool) -> None:
    """Static joins, of the configuration file and of `join`."""
    found = client.get("joins")
    if as_json:
        print_json(found)
        return
    rows = [(row["source"] or "*", row["group"], row["interface"] or "all", row["origin"]) for row in found["items"]]
    print_table(["SOURCE", "GROUP", "INTERFACE", "FROM"], rows, "no static joins")


@click.command()
@click.argument("state", type=click.Choice(["on", "off"]))
@as_json
@agent_options
def drain(client: AgentClient, state: str, as_json: bool) -> None:
    """Turn new tunnels away before maintenance (on), or take them again (off).

    A relay tells new gateways to go elsewhere and keeps the tunnels it has. A gateway leaves its channels and says
    goodbye to its PIM neighbours, so that another border of the link takes over.

    \b
    Example: drain, wait until the last tunnel is gone, stop:
      amt-agent drain on
      amt-agent status --json | jq .counts.tunnels
    """
    found = client.send("PUT", "drain", {"enabled": state == "on"})
    if as_json:
        print_json(found)
    else:
        click.echo(f"{'draining' if found['draining'] else 'not draining'}, {found['tunnels']} tunnels established")


def _document(source: str, group: str, interface: str | None) -> dict[str, str | None]:
    try:
        channel = Channel.parse(source, group)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return {
        "source": None if channel.source is None else str(channel.source),
        "group": str(channel.group),
        "interface": interface,
    }
