"""`amt-agent receive`: one channel on this host, without root (RFC 8313 §3.4)."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final

import click

from agent.protocol.channels import Address, Channel, is_forwardable_group, is_ssm_group
from agent.receive.output import OutputError, open_output
from agent.receive.progress import Progress, describe, summarise
from agent.receive.session import ANYCAST_RELAYS, STABLE_PORT, Ending, ReceiveOptions, Session, SessionError, receive

EXIT_RECEIVED: Final = 0
EXIT_NOTHING_CAME: Final = 1
EXIT_LOCAL_FAILURE: Final = 3

_HELP: Final = f"""Receive the channel (SOURCE,GROUP) through a multicast relay, without root.

Finds a relay, joins there, and takes the stream out of the tunnel: into a player, a file, or nowhere at all to measure
rate, loss and join latency, which are told on standard error. SOURCE may be * for any source. Ctrl-C leaves the channel
and tears the tunnel down.

\b
Examples:
  Watch a stream with ffplay or VLC:
    amt-agent receive 198.51.100.7 232.1.1.1 --out udp://127.0.0.1:5004
    ffplay udp://127.0.0.1:5004        vlc udp://@127.0.0.1:5004
  or through a pipe:
    amt-agent receive 198.51.100.7 232.1.1.1 --out - | ffplay -
  Record one minute from a relay of your own:
    amt-agent receive 198.51.100.7 232.1.1.1 --relay relay.example.net --seconds 60 --out minute.ts
  Does it arrive, and whole? For a script:
    amt-agent receive 198.51.100.7 232.1.1.1 --port 5000 --seconds 10 --json

\b
Exit status:
  {EXIT_RECEIVED}  the stream came (look at "lost" for how much of it)
  {EXIT_NOTHING_CAME}  nothing came within --timeout, or before Ctrl-C
  2  wrong usage
  {EXIT_LOCAL_FAILURE}  this host failed: no route, no socket, no such output
"""


@click.command("receive", help=_HELP)
@click.argument("source")
@click.argument("group")
@click.option("--port", type=click.IntRange(1, 65535), help="UDP port of the stream.  [default: any]")
@click.option(
    "--relay",
    "relays",
    multiple=True,
    metavar="ADDRESS",
    help="Relay or relay discovery address, or a name; may be given again for others to try next.  "
    f"[default: {' and '.join(map(str, ANYCAST_RELAYS))}, the anycast addresses]",
)
@click.option(
    "--relay-port", type=click.IntRange(1, 65535), default=STABLE_PORT, show_default=True, help="Its UDP port."
)
@click.option("--discover/--no-discover", default=True, show_default=True, help="Ask for a relay before joining.")
@click.option(
    "--local-port", type=click.IntRange(0, 65535), help=f"Local UDP port.  [default: {STABLE_PORT}, or any if in use]"
)
@click.option("--out", "target", metavar="TARGET", help="udp://HOST:PORT, a file, or - for standard output.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop this long after the first packet.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="Give up when nothing has come after this many seconds.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Figures as JSON at the end, on standard output unless --out is -."
)
@click.option("--verbose", "-v", is_flag=True, help="Tell what happens with the relay.")
def receive_command(
    source: str,
    group: str,
    port: int | None,
    relays: tuple[str, ...],
    relay_port: int,
    discover: bool,
    local_port: int | None,
    target: str | None,
    seconds: float | None,
    timeout: float,
    as_json: bool,
    verbose: bool,
) -> None:
    """Run the host role; the text above is its help."""
    options = ReceiveOptions(
        channel=_channel(source, group),
        port=port,
        relays=_resolve(relays) if relays else ANYCAST_RELAYS,
        relay_port=relay_port,
        discover=discover,
        local_port=local_port,
        seconds=seconds,
        timeout=timeout,
    )
    progress = Progress(sys.stderr, live=sys.stderr.isatty())
    try:
        output = open_output(target)
        session = Session(options, output, progress.show, progress.event if verbose else _say_nothing)
        try:
            ending = receive(session)
        finally:
            output.close()
    except (SessionError, OutputError) as error:
        click.echo(f"amt-agent receive: {error}", err=True)
        sys.exit(EXIT_LOCAL_FAILURE)
    progress.clear()
    summary = summarise(session, ending, output)
    if as_json:
        click.echo(json.dumps(summary, indent=2), err=target == "-")
    else:
        click.echo(describe(summary), err=True)
    sys.exit(_exit_status(summary, ending, target))


def _say_nothing(_text: str) -> None:
    """Events are told with --verbose only."""


def _exit_status(summary: dict[str, Any], ending: Ending, target: str | None) -> int:
    if ending is Ending.OUTPUT_CLOSED and target != "-":  # a player that was closed is no failure, a full disk is
        return EXIT_LOCAL_FAILURE
    return EXIT_RECEIVED if summary["packets"] else EXIT_NOTHING_CAME


def _channel(source: str, group: str) -> Channel:
    try:
        channel = Channel.parse(source, group)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not is_forwardable_group(channel.group):
        raise click.UsageError(f"{group} is local: it never leaves its network")
    if channel.source is None and is_ssm_group(channel.group):
        raise click.UsageError(f"{group} is source-specific (RFC 4607): name the source")
    return channel


def _resolve(names: Sequence[str]) -> tuple[Address, ...]:
    """Addresses of the relays, in the order given and the resolver's order within a name, each once."""
    addresses: dict[Address, None] = {}
    for name in names:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise click.UsageError(f"relay {name}: {error.strerror or error}") from error
        addresses.update((ip_address(str(item[4][0]).partition("%")[0]), None) for item in found)
    return tuple(addresses)
