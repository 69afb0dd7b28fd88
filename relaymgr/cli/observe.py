"""`relaymgr tunnel`, `channel`, `neighbor` and `statistics`: what relays were last seen doing, how fresh it is."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from relaymgr.cli.client import Document, Manager
from relaymgr.cli.names import names, optional
from relaymgr.cli.options import HELP, as_json, limit_options, manager_options
from relaymgr.cli.output import age, at, count, endpoint, print_json, print_listing, rate, size, words
from relaymgr.cli.resources import listing

as_csv = click.option("--csv", "as_csv", is_flag=True, help="Every row as CSV, whatever --limit says.")
_relay = click.option("--relay", metavar="RELAY", help="Only of this relay, by name or identifier.")


@click.group(context_settings=HELP)
def tunnel() -> None:
    """Tunnels: gateways at relays, as last seen.

    \b
    Example:
      relaymgr tunnel list --relay mx1
    """


@tunnel.command("list")
@_relay
@click.option("--ad", metavar="AD", help="Only gateways of this AD.")
@click.option("--state", type=click.Choice(["active", "pending", "down", "unknown"]), help="Only in this state.")
@click.option("--gateway", metavar="ADDRESS", help="Only this gateway.")
@click.option("--sort", metavar="COLUMN", help="Column of the API to sort by, - before it for descending.")
@limit_options
@as_csv
@as_json
@manager_options
def list_tunnels(
    manager: Manager,
    relay: str | None,
    ad: str | None,
    state: str | None,
    gateway: str | None,
    sort: str | None,
    limit: int,
    everything: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """List tunnels. SEEN tells how old a row is; it is marked when the relay could not be read since.

    \b
    Examples:
      relaymgr tunnel list --ad example --state active
      relaymgr tunnel list --gateway 203.0.113.9 --json
      relaymgr tunnel list --csv > tunnels.csv
    """
    filters = {
        "relay_id": optional(manager, "relays", relay),
        "ad_id": optional(manager, "ads", ad),
        "state": state,
        "gateway_address": gateway,
        "sort": sort,
    }
    found = _read(manager, "tunnels", limit, everything, as_csv, as_json, filters)
    if found is None:
        return
    ads = names(manager, "ads", (row["ad_id"] for row in found["items"]))
    rows = [
        (
            row["relay_name"],
            endpoint(row["gateway_address"], row["gateway_port"]),
            ads.get(row["ad_id"]),
            row["state"],
            age(row["uptime_seconds"]),
            count(row["channels"]),
            count(row["packets"]),
            size(row["bytes"]),
            count(row["packets_per_second"]),
            seen(row),
        )
        for row in found["items"]
    ]
    headers = ["RELAY", "GATEWAY", "AD", "STATE", ">UP", ">CHANNELS", ">PACKETS", ">BYTES", ">PPS", "SEEN"]
    print_listing(found, headers, rows, "no tunnels known")


@click.group(context_settings=HELP)
def channel() -> None:
    """Channels, (S,G), at relays as last seen.

    \b
    Example:
      relaymgr channel list --group 232.1.1.1
    """


@channel.command("list")
@_relay
@click.option("--group", metavar="ADDRESS", help="Only this group.")
@click.option("--source", metavar="ADDRESS", help="Only this source.")
@limit_options
@as_csv
@as_json
@manager_options
def list_channels(
    manager: Manager,
    relay: str | None,
    group: str | None,
    source: str | None,
    limit: int,
    everything: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """List channels: where they come in, where they go, at which rate.

    \b
    Examples:
      relaymgr channel list --relay mx1
      relaymgr channel list --group 232.1.1.1 --json
    """
    relay_id = optional(manager, "relays", relay)
    filters = {"relay_id": relay_id, "group_address": group, "source_address": source}
    found = _read(manager, "channels", limit, everything, as_csv, as_json, filters)
    if found is None:
        return
    rows = [
        (
            row["relay_name"],
            row["group_address"],
            row["source_address"] or "*",
            row["upstream_interface"],
            words(row["downstream_interfaces"][:3]),
            count(row["gateways"]),
            count(row["packets"]),
            rate(row["kilobits_per_second"], "kbit/s"),
            row["state"],
            seen(row),
        )
        for row in found["items"]
    ]
    headers = ["RELAY", "GROUP", "SOURCE", "IN", "OUT", ">GATEWAYS", ">PACKETS", ">RATE", "STATE", "SEEN"]
    print_listing(found, headers, rows, "no channels known")


@click.group(context_settings=HELP)
def neighbor() -> None:
    """PIM neighbours of relays, as last seen.

    \b
    Example:
      relaymgr neighbor list --relay mx1
    """


@neighbor.command("list")
@_relay
@limit_options
@as_csv
@as_json
@manager_options
def list_neighbors(
    manager: Manager, relay: str | None, limit: int, everything: bool, as_csv: bool, as_json: bool
) -> None:
    """List PIM neighbours.

    \b
    Example:
      relaymgr neighbor list --relay mx1
    """
    filters = {"relay_id": optional(manager, "relays", relay)}
    found = _read(manager, "pim-neighbors", limit, everything, as_csv, as_json, filters)
    if found is None:
        return
    rows = [
        (
            row["relay_name"],
            row["address"],
            row["interface"],
            age(row["uptime_seconds"]),
            age(row["hold_time_seconds"]),
            row["priority"],
            seen(row),
        )
        for row in found["items"]
    ]
    headers = ["RELAY", "NEIGHBOR", "INTERFACE", ">UP", ">HOLD", ">PRIORITY", "SEEN"]
    print_listing(found, headers, rows, "no PIM neighbours known")


@click.group(context_settings=HELP)
def statistics() -> None:
    """Counters of relays over time.

    \b
    Example:
      relaymgr statistics list --relay mx1 --limit 10
    """


@statistics.command("list")
@_relay
@limit_options
@as_csv
@as_json
@manager_options
def list_statistics(
    manager: Manager, relay: str | None, limit: int, everything: bool, as_csv: bool, as_json: bool
) -> None:
    """List samples, newest first. --json has every counter by its neutral name.

    \b
    Example:
      relaymgr statistics list --relay mx1 --limit 1 --json | jq .items[0].errors
    """
    filters = {"relay_id": optional(manager, "relays", relay)}
    found = _read(manager, "statistics", limit, everything, as_csv, as_json, filters)
    if found is None:
        return
    rows = [
        (
            at(row["at"]),
            row["relay_name"],
            _of(row["active_tunnels"], row["tunnel_limit"]),
            _of(row["active_streams"], row["stream_limit"]),
            count(row["counters"].get("requests_received")),
            count(row["counters"].get("updates_received")),
            words([f"{name} {count(value)}" for name, value in sorted(row["errors"].items()) if value]),
        )
        for row in found["items"]
    ]
    headers = ["AT", "RELAY", ">TUNNELS", ">STREAMS", ">REQUESTS", ">UPDATES", "ERRORS"]
    print_listing(found, headers, rows, "no statistics known")


def seen(row: Document) -> Text:
    """How old a row is, and why it is not fresh."""
    text = Text(age(row["age_seconds"]) or "never")
    if row["stale"]:
        text.append(f" stale: {row['stale']}", style="yellow")
    return text


def _read(
    manager: Manager,
    collection: str,
    limit: int,
    everything: bool,
    as_csv: bool,
    as_json: bool,
    filters: dict[str, Any],
) -> Document | None:
    """The rows to show as a table; None when they were printed for programs."""
    if as_csv:
        click.echo(manager.text(f"/{collection}", "text/csv", format="csv", **filters), nl=False)
        return None
    found = listing(manager, collection, limit, everything, **filters)
    if as_json:
        print_json(found)
        return None
    return found


def _of(value: int | None, limit: int | None) -> str | None:
    """118 of 5 000; unknown parts as a dash."""
    if value is None and limit is None:
        return None
    return f"{count(value) or '-'} of {count(limit)}" if limit is not None else count(value)
