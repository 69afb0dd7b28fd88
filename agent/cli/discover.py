"""The command `discover`."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agent.cli.client import EXIT_REFUSED, print_json
from agent.cli.tables import endpoint, print_table
from agent.protocol.channels import Address, Channel, is_ssm_group, is_unicast
from agent.protocol.discovery import DiscoveryMethod

if TYPE_CHECKING:
    from agent.protocol.discovery import Finding, RelayLocation
    from agent.protocol.discovery_reply import Reply, Step
    from agent.service.config import Configuration
    from agent.service.discovery_explanation import Explanation

DEFAULT_CONFIG: Final = Path("/etc/isthmus/agent.toml")
_STANDARD_ORDER: Final = [method.value for method in DiscoveryMethod]

_HELP: Final = f"""Find relays for the traffic of SOURCE, and show every step (RFC 8777).

Asks like the agent would: relays of the configuration first; then, in the configured order, DNS-SD (_amt._udp in this
network's domain), the well-known anycast addresses, and DRIAD (AMTRELAY records under the source's reverse name, which
its operator publishes). Only the DNS is asked, no relay. Needs neither root nor a running agent.

\b
Examples:
  What would the agent of this host do?
    amt-agent discover 198.51.100.7
  Does the operator of a source publish relays, and did my change of the zone arrive?
    amt-agent discover 198.51.100.7 --method driad
    amt-agent discover 2001:db8::7 --method driad --resolver 192.0.2.53
  What to write into the zone 100.51.198.in-addr.arpa for it:
    7  IN AMTRELAY 10 0 3 relays.example.net.     precedence, D bit, type (0 none, 1 IPv4, 2 IPv6, 3 name), relay

\b
Without --method or --config and without {DEFAULT_CONFIG}: {", ".join(_STANDARD_ORDER)}, the order of RFC 8777 §2.3.2.

\b
Exit status: 0 there is a relay to try; 1 there is none; 2 wrong usage.
"""


@click.command(help=_HELP)
@click.argument("source")
@click.option("--group", help="Group of the channel, for relays that serve some groups only.")
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="AMT_AGENT_CONFIG",
    help=f"Take relays and [discovery] from there.  [default: {DEFAULT_CONFIG}, if it is there]",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(_STANDARD_ORDER),
    help="Ask by this method only; given again: and by these, in this order.",
)
@click.option("--resolver", "resolvers", multiple=True, metavar="ADDRESS", help="DNS server to ask; may be repeated.")
@click.option("--resolver-port", type=click.IntRange(1, 65535), help="Port of those servers.  [default: 53]")
@click.option("--domain", help="Domain for DNS-SD.  [default: the host's]")
@click.option("--timeout", type=click.FloatRange(0.1, 60), help="Seconds one question may take.  [default: 5]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def discover(
    source: str,
    group: str | None,
    path: Path | None,
    methods: tuple[str, ...],
    resolvers: tuple[str, ...],
    resolver_port: int | None,
    domain: str | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Show relay discovery; the text above is its help."""
    from agent.service.discovery_explanation import explain  # noqa: PLC0415 only this command needs it

    address = _source(source, group)
    options = {
        "methods": list(methods),
        "resolvers": list(resolvers),
        "resolver_port": resolver_port,
        "domain": domain,
        "query_timeout": timeout,
    }
    configuration = _configuration(path, {name: value for name, value in options.items() if value})
    uplink = configuration.gateway.uplink
    found = explain(
        address,
        configuration.discovery,
        () if methods and path is None else configuration.gateway.relay,
        uplink[0] if len(uplink) == 1 else None,
        None if group is None else ip_address(group),
    )
    if as_json:
        print_json(_document(found, group))
    else:
        _print(found, group)
    if not found.has_relay:
        raise SystemExit(EXIT_REFUSED)


def _source(source: str, group: str | None) -> Address:
    try:
        address = ip_address(source) if group is None else Channel.parse(source, group).source
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if address is None or not is_unicast(address):
        raise click.UsageError(f"relays are discovered for a source: {source} is none")
    return address


def _configuration(path: Path | None, options: dict[str, Any]) -> Configuration:
    """The configuration, with what the command line says instead; the standard order where nothing says one."""
    from pydantic import ValidationError  # noqa: PLC0415 only this command needs it

    from agent.service.config import Configuration, ConfigurationError, DiscoverySection, load  # noqa: PLC0415

    chosen = path if path is not None else DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None
    try:
        configuration = Configuration.model_construct() if chosen is None else load(chosen)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    written = configuration.discovery.model_dump(exclude_unset=True, mode="json")
    if chosen is None:
        written = {"methods": _STANDARD_ORDER}
    try:
        section = DiscoverySection.model_validate(written | options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise click.UsageError(f"{key}: {first['msg'].removeprefix('Value error, ')}") from error
    return configuration.model_copy(update={"discovery": section})


def _print(found: Explanation, group: str | None) -> None:
    from agent.service.discovery_explanation import reason  # noqa: PLC0415

    if group is not None and not is_ssm_group(ip_address(group)):
        click.echo(f"{group} is no source-specific group: its members do not name {found.answer.source}.\n")
    click.echo("relays of the configuration")
    for relay in found.configured:
        what = "does not serve this source" if group is None else "does not serve this channel"
        if group is None and relay.has_groups:
            what = "serves some groups only: --group tells which"
        if relay.prefix_length is not None:
            prefix = (
                f"serves its prefix of length {relay.prefix_length}" if relay.prefix_length else "serves every source"
            )
            what = f"{prefix}, {_discovery(relay.discover)}; comes before all below"
        click.echo(f"  {endpoint(str(relay.address), relay.port)} {what}")
    if not found.configured:
        click.echo("  none")
    methods = [finding.method for finding in found.findings]
    for finding in found.findings:
        click.echo(f"{finding.method.value}: {_outcome(finding)}")
        for step in found.steps:
            if step.method is finding.method:
                for line in _describe(step):
                    click.echo(f"  {line}")
    if not methods:
        click.echo("discovery: no method is configured; see [discovery] methods, or --method")
    click.echo("")
    rows = []
    previous: RelayLocation | None = None
    for number, location in enumerate(found.answer.candidates, start=1):
        rows.append(
            (
                number,
                endpoint(str(location.address), location.port),
                location.method.value,
                location.precedence,
                _discovery(location.discover),
                location.name,
                reason(previous, location, methods),
            )
        )
        previous = location
    headers = [">ORDER", "RELAY", "METHOD", ">PRECEDENCE", "DISCOVERY", "NAME", "WHY THERE"]
    print_table(headers, rows, f"discovered: {found.answer.outcome.value}")


def _outcome(finding: Finding) -> str:
    found = f"{len(finding.locations)} found" if finding.locations else ""
    return ", but ".join(
        filter(None, (found, "" if found and finding.outcome.name == "FOUND" else finding.outcome.value))
    )


def _discovery(is_needed: bool) -> str:
    return "discovery first (D=0)" if is_needed else "direct (D=1)"


def _describe(step: Step) -> list[str]:
    """A question and its reply, or a remark, in lines."""
    if step.reply is None:
        return [step.remark]
    reply = step.reply
    lines = [f"{reply.question.name} {reply.question.type.name}? {_status(reply)}"]
    lines += [f"  {alias}  (alias, TTL {alias.ttl})" for alias in reply.aliases]
    lines += [f"  {record}" for record in reply.records]
    lines += [f"  passed over: {refusal.replace('_', ' ')}" for refusal in reply.refused]
    return lines


def _status(reply: Reply) -> str:
    words = [reply.status.value]
    if reply.detail:
        words.append(f": {reply.detail}")
    if reply.server is not None:
        words.append(f" by {reply.server} over {reply.transport}")
    if reply.is_validated:
        words.append(", proven by DNSSEC as that server says")
    words.append(f", counts for {reply.lifetime:.0f} s")
    return "".join(words)


def _document(found: Explanation, group: str | None) -> dict[str, Any]:
    from agent.service.discovery_explanation import reason  # noqa: PLC0415

    answer = found.answer
    methods = [finding.method for finding in found.findings]
    behind = zip((None, *answer.candidates), answer.candidates, strict=False)
    return {
        "source": str(answer.source),
        "group": group,
        "outcome": answer.outcome.name.lower(),
        "configured": [
            {
                "address": str(relay.address),
                "port": relay.port,
                "discover": relay.discover,
                "prefix_length": relay.prefix_length,
                "has_groups": relay.has_groups,
            }
            for relay in found.configured
        ],
        "methods": [
            {
                "method": finding.method.value,
                "outcome": finding.outcome.name.lower(),
                "steps": [_step(step) for step in found.steps if step.method is finding.method],
            }
            for finding in found.findings
        ],
        "candidates": [
            {
                "address": str(location.address),
                "port": location.port,
                "discover": location.discover,
                "method": location.method.value,
                "precedence": location.precedence,
                "weight": location.weight,
                "preference": location.preference,
                "name": location.name,
                "usable": location.is_usable,
                "reason": reason(previous, location, methods),
            }
            for previous, location in behind
        ],
    }


def _step(step: Step) -> dict[str, Any]:
    if step.reply is None:
        return {"remark": step.remark}
    reply = step.reply
    return {
        "question": {"name": reply.question.name, "type": reply.question.type.name},
        "status": reply.status.name.lower(),
        "server": None if reply.server is None else str(reply.server),
        "transport": reply.transport,
        "aliases": [
            {"owner": alias.owner, "type": alias.type, "target": alias.target, "ttl": alias.ttl}
            for alias in reply.aliases
        ],
        "records": [str(record) for record in reply.records],
        "lifetime": round(reply.lifetime, 3),
        "validated": reply.is_validated,
        "refused": list(reply.refused),
        "detail": reply.detail,
    }
