"""Commands that look: status, tunnels, channels, interfaces, neighbors, statistics."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from agent.cli.client import EXIT_REFUSED, AgentClient, agent_options, print_json
from agent.cli.engine import engine_pairs
from agent.cli.tables import age, console, count, endpoint, print_pairs, print_table, since, size, until

as_json = click.option("--json", "as_json", is_flag=True, help="For programs: the document of the REST API.")
at_most = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Rows at most."
)


@click.command()
@as_json
@agent_options
def status(client: AgentClient, as_json: bool) -> None:
    """The agent in short: role, engine, counts, problems.

    Below the engine: for each uplink and downstream interface the fastest plane that packets can take there (xdp,
    xdp-mfc, tc, userspace) and why no faster one; `left to userspace` counts packets of fast channels that the slower
    engine took instead (fragments, options, too long for an interface): they are forwarded too.

    Exits with 1 when the agent is not ready, for scripts that wait for it.

    \b
    Examples:
      amt-agent status
      amt-agent status --json | jq .counts
      amt-agent status --json | jq .engine.interfaces     every plane of every interface
      AMT_AGENT_URL=https://border:8443 amt-agent status --token-file ~/.isthmus-token
    """
    found = client.get("status")
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    if not found["ready"]:
        raise SystemExit(EXIT_REFUSED)


def _print_status(found: dict[str, Any]) -> None:
    counts, configuration = found["counts"], found["configuration"]
    state = "ready" if found["ready"] else "not ready"
    pairs: list[tuple[str, object]] = [
        ("agent", f"{found['name']}, {found['role']}, version {found['version']}"),
        ("state", f"{state}{', draining' if found['draining'] else ''}, up {age(found['uptime'])}"),
        *engine_pairs(found["engine"]),
        ("tunnels", count(counts["tunnels"])),
        ("channels", _channel_counts(counts["channels"], found["engine"]["channels"])),
        ("static joins", count(counts["joins"])),
        ("interfaces", f"{counts['interfaces']} up"),
        ("configuration", configuration["etag"].strip('"')[:12]),
    ]
    if configuration["candidate"]:
        pairs.append(("candidate", "waits to be committed: amt-agent config diff"))
    if configuration["confirm_deadline"]:
        left = until(configuration["confirm_deadline"])
        pairs.append(("unconfirmed", f"rolled back in {left} unless: amt-agent config confirm"))
    if configuration["last_error"]:
        pairs.append(("last error", configuration["last_error"]))
    print_pairs(pairs)
    for problem in found["problems"]:
        subject = f" {problem['subject']}:" if problem["subject"] else ""
        line = Text(problem["severity"], style="red" if problem["severity"] == "error" else "yellow")
        console().print(line.append(f":{subject} {problem['message']} ({problem['code']})", style="default"))


@click.command()
@click.option("--state", help="Only tunnels in this state, such as established.")
@click.option("--address", help="Only tunnels with this relay, gateway or discovery address.")
@at_most
@as_json
@agent_options
def tunnels(client: AgentClient, state: str | None, address: str | None, limit: int, as_json: bool) -> None:
    """Tunnels: where they go, how they are, what they carried.

    \b
    Examples:
      amt-agent tunnels
      amt-agent tunnels --state discovering
      amt-agent tunnels --address 203.0.113.5 --json
    """
    found = client.get("tunnels", state=state, address=address, limit=limit)
    if as_json:
        print_json(found)
        return
    headers = ["RELAY", "ORIGIN", "GATEWAY", "STATE", "UP", ">LAST QUERY", ">CHANNELS", ">PACKETS", ">BYTES", "NOTE"]
    rows = [
        (
            endpoint(row["relay_address"] or row["discovery_address"], row["relay_port"]),
            row["origin"],
            endpoint(
                row["gateway_address"] or row["local_address"],
                row["gateway_port"] if row["gateway_address"] else row["local_port"],
            ),
            row["state"],
            since(row["established_at"]),
            age(row["last_query_age"]),
            count(row["channels"]),
            count(row["packets"]),
            size(row["bytes"]),
            _tunnel_note(row),
        )
        for row in found["items"]
    ]
    print_table(headers, rows, "no tunnels")
    _say_more(found)


def _tunnel_note(row: dict[str, Any]) -> str:
    held = f"held down for {until(row['held_until'])}: {row['hold_reason']}" if row["held_until"] else row["last_error"]
    return ", ".join(filter(None, ("L flag" if row["limited"] else "", "live-live" if row["live_live"] else "", held)))


@click.command()
@click.option("--source", help="Only channels of this source.")
@click.option("--group", help="Only channels of this group.")
@click.option("--interface", help="Only channels that come in or leave by this interface.")
@click.option("--tunnel", help="Only channels of this tunnel.")
@click.option("--idle/--receiving", default=None, help="Only channels without, or with, packets in the last seconds.")
@at_most
@as_json
@agent_options
def channels(
    client: AgentClient,
    source: str | None,
    group: str | None,
    interface: str | None,
    tunnel: str | None,
    idle: bool | None,
    limit: int,
    as_json: bool,
) -> None:
    """Channels: who wants them, where they come from and go to, what came.

    PLANE is who forwards: xdp, xdp-mfc or tc in the kernel's programs, userspace, or the kernel alone when the channel
    comes natively. NOTE says why it is not a faster one, and why a channel is not forwarded.

    \b
    Examples:
      amt-agent channels
      amt-agent channels --idle               wanted, but nothing comes
      amt-agent channels --interface eth1
    """
    filters = {"source": source, "group": group, "interface": interface, "tunnel": tunnel}
    found = client.get("channels", limit=limit, idle=idle, **filters)
    if as_json:
        print_json(found)
        return
    headers = [
        *("SOURCE", "GROUP", "IN", "OUT", "PLANE", "WANTED BY"),
        *(">PACKETS", ">BYTES", ">LAST PACKET", ">JOIN TIME", "NOTE"),
    ]
    rows = [
        (
            row["source"] or "*",
            row["group"],
            _feed(row),
            " ".join(row["outgoing_interfaces"]) or (f"{row['tunnel_count']} tunnels" if row["tunnel_count"] else ""),
            row["plane"],
            _wanted_by(row),
            count(row["packets"]),
            size(row["bytes"]),
            age(row["last_packet_age"]),
            None if row["join_latency"] is None else f"{row['join_latency'] * 1000:.1f} ms",
            _note(row),
        )
        for row in found["items"]
    ]
    print_table(headers, rows, "no channels")
    _say_more(found)


@click.command()
@as_json
@agent_options
def interfaces(client: AgentClient, as_json: bool) -> None:
    """Interfaces in use, with their IGMP and MLD queriers and PIM routers.

    Under PIM: the link's designated router, how many neighbours there are and how many channels they asked for.
    """
    found = client.get("interfaces")
    if as_json:
        print_json(found)
        return
    headers = ["INTERFACE", "ROLE", "STATE", ">MTU", "ADDRESSES", "QUERIER", ">GROUPS", "PIM", ">PACKETS", ">BYTES"]
    rows = [
        (
            row["name"],
            row["role"],
            "up" if row["up"] else "down",
            row["mtu"],
            " ".join(row["addresses"]),
            ", ".join(f"{q['protocol']} {'us' if q['elected'] else q['querier_address']}" for q in row["queriers"]),
            sum(q["groups"] for q in row["queriers"]),
            ", ".join(_pim(item) for item in row["pim"]),
            count(row["packets"]),
            size(row["bytes"]),
        )
        for row in found["items"]
    ]
    print_table(headers, rows, "no interfaces")


@click.command()
@as_json
@agent_options
def neighbors(client: AgentClient, as_json: bool) -> None:
    """Other multicast routers seen: PIM neighbours, and queriers that won the election against us."""
    found = client.get("neighbors")
    if as_json:
        print_json(found)
        return
    headers = ["INTERFACE", "ADDRESS", "KIND", ">UP", ">FORGOTTEN IN", "DR", ">PRIORITY", "GENERATION", "ALSO"]
    rows = [
        (
            row["interface"],
            row["address"],
            row["kind"],
            age(row["uptime"]),
            age(row["expires_in"]),
            {True: "yes", False: "no", None: None}[row["designated"]],
            row["priority"],
            None if row["generation_id"] is None else f"{row['generation_id']:08x}",
            " ".join(row["secondary_addresses"]),
        )
        for row in found["items"]
    ]
    print_table(headers, rows, "no neighbours")


@click.command()
@as_json
@agent_options
def statistics(client: AgentClient, as_json: bool) -> None:
    """Counters since the start: forwarded, refused by reason, protocol messages.

    `to userspace` are packets of channels on a fast plane that the userspace engine forwarded instead.
    """
    found = client.get("statistics")
    if as_json:
        print_json(found)
        return
    rows: list[tuple[str, str, str]] = [
        ("forwarded", "packets", count(found["forwarded_packets"])),
        ("forwarded", "bytes", size(found["forwarded_bytes"])),
        ("process", "processor time", f"{found['cpu_seconds']:.1f} s"),
        ("process", "resident memory", size(found["resident_bytes"])),
    ]
    rows += [("refused", reason, count(number)) for reason, number in sorted(found["refused"].items())]
    rows += [("to userspace", reason, count(number)) for reason, number in sorted(found["exceptions"].items())]
    for machine, counters in sorted(found["control"].items()):
        rows += [(machine, name, count(number)) for name, number in sorted(counters.items())]
    print_table(["OF", "WHAT", ">COUNT"], rows, "nothing counted")


def _feed(row: dict[str, Any]) -> str:
    tunnels: list[str] = row["tunnels"]
    if row["upstream"] == "native":
        return " ".join(filter(None, (row["incoming_interface"], row["upstream_neighbor"])))
    if row["outgoing_interfaces"] and tunnels:
        return tunnels[0] if row["tunnel_count"] == 1 else f"{row['tunnel_count']} tunnels"
    return str(row["incoming_interface"] or "")


def _wanted_by(row: dict[str, Any]) -> str:
    names = [
        ":".join(filter(None, (item["kind"], item["interface"], item["neighbor"]))) for item in row["interests"][:3]
    ]
    more = row["interest_count"] - len(names)
    return " ".join(names) + (f" +{more}" if more > 0 else "")


def _note(row: dict[str, Any]) -> str:
    settled = (f"assert {item['state']} on {item['interface']}" for item in row["asserts"])
    slower = f"not faster: {row['plane_reason']}" if row["plane_reason"] else None
    return ", ".join(filter(None, (row["reason"], *settled, slower)))


def _channel_counts(total: int, by_plane: dict[str, int]) -> str:
    told = ", ".join(f"{name} {count(number)}" for name, number in by_plane.items())
    return f"{count(total)} ({told})" if told else count(total)


def _pim(item: dict[str, Any]) -> str:
    if item["address"] is None:
        return f"ipv{item['family']} no address"
    router = "us" if item["designated"] else item["designated_router"]
    return f"ipv{item['family']} dr {router}, {item['neighbors']} neighbours, {item['channels']} channels"


def _say_more(found: dict[str, Any]) -> None:
    if found["next_offset"] is not None:
        click.echo(f"only the first {found['next_offset']} are shown; --limit shows more", err=True)
