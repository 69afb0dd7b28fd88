"""`relaymgr audit` and `relaymgr event`: who did what, and what happened."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import json

import click
from rich.text import Text

from relaymgr.cli.client import Document, Manager
from relaymgr.cli.names import names, optional
from relaymgr.cli.options import HELP, as_json, limit_options, manager_options
from relaymgr.cli.output import at, cell, console, print_json, print_listing
from relaymgr.cli.resources import listing
from relaymgr.cli.streams import follow

_SEVERITIES = click.Choice(["info", "warning", "critical"])


@click.group(context_settings=HELP)
def audit() -> None:
    """Who changed what, when and why.

    \b
    Example:
      relaymgr audit list --limit 20
    """


@audit.command("list")
@click.option("--actor", metavar="ACTOR", help="Only by this actor, such as token:ansible or user:alice.")
@click.option("--action", metavar="ACTION", help="Only this action, such as intent.put.")
@click.option("--resource", metavar="ID", help="Only of the resource with this identifier.")
@click.option("--ticket", metavar="ID", help="Only with this ticket.")
@limit_options
@as_json
@manager_options
def list_audit(
    manager: Manager,
    actor: str | None,
    action: str | None,
    resource: str | None,
    ticket: str | None,
    limit: int,
    everything: bool,
    as_json: bool,
) -> None:
    """List writes, newest first. --json shows before and after.

    \b
    Examples:
      relaymgr audit list --actor user:alice
      relaymgr audit list --action intent.put --json | jq '.items[].after'
    """
    filters = {"actor": actor, "action": action, "resource_id": resource, "ticket": ticket}
    found = listing(manager, "audit", limit, everything, **filters)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            at(row["at"]),
            row["actor"],
            row["action"],
            f"{row['resource_type']} {row['resource_id'] or ''}".strip(),
            row["outcome"],
            row["comment"],
            row["ticket"],
        )
        for row in found["items"]
    ]
    headers = ["AT", "ACTOR", "ACTION", "RESOURCE", "OUTCOME", "COMMENT", "TICKET"]
    print_listing(found, headers, rows, "nothing was written yet")


@click.group(context_settings=HELP)
def event() -> None:
    """What a NOC wants to know: relays lost, limits near, drift found, jobs ended.

    \b
    Example:
      relaymgr event watch --severity warning
    """


@event.command("list")
@click.option("--relay", metavar="RELAY", help="Only about this relay, by name or identifier.")
@click.option("--severity", type=_SEVERITIES, help="Only of this severity.")
@click.option("--kind", metavar="KIND", help="Only of this kind.")
@limit_options
@as_json
@manager_options
def list_events(
    manager: Manager,
    relay: str | None,
    severity: str | None,
    kind: str | None,
    limit: int,
    everything: bool,
    as_json: bool,
) -> None:
    """List events, newest first.

    \b
    Example:
      relaymgr event list --relay mx1 --severity critical
    """
    relay_id = optional(manager, "relays", relay)
    found = listing(manager, "events", limit, everything, relay_id=relay_id, severity=severity, kind=kind)
    if as_json:
        print_json(found)
        return
    relays = names(manager, "relays", (row["relay_id"] for row in found["items"]))
    rows = [
        (at(row["at"]), row["severity"], row["kind"], relays.get(row["relay_id"]), row["message"])
        for row in found["items"]
    ]
    print_listing(found, ["AT", "SEVERITY", "KIND", "RELAY", "MESSAGE"], rows, "no events")


@event.command("watch")
@click.option("--relay", metavar="RELAY", help="Only about this relay, by name or identifier.")
@click.option("--severity", type=_SEVERITIES, help="Only of this severity.")
@as_json
@manager_options
def watch_events(manager: Manager, relay: str | None, severity: str | None, as_json: bool) -> None:
    """Print events as they happen, until interrupted; goes on where it was when the manager restarts.

    With --json each line is one event.

    \b
    Examples:
      relaymgr event watch
      relaymgr event watch --json | jq -c 'select(.severity == "critical")'
    """
    relay_id = optional(manager, "relays", relay)
    newest = manager.get("/events", limit=1, sort="-id")["items"]
    try:
        for happened in follow(manager, "/events/stream", last_event_id=str(newest[0]["id"]) if newest else "0"):
            document = {} if happened is None else happened.document()
            wanted = relay_id in {None, document.get("relay_id")} and severity in {None, document.get("severity")}
            if "message" in document and wanted:
                _say(document, as_json=as_json)
    except KeyboardInterrupt:
        raise SystemExit(0) from None


def _say(document: Document, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    line = Text(f"{at(document['at'])} ", style="dim")
    line.append_text(cell(document["severity"])).append(f" {document['kind']}: {cell(document['message'])}")
    console().print(line, soft_wrap=True)
