"""A relay as a row of a table and as a page."""

from __future__ import annotations

from rich.text import Text

from relaymgr.cli.client import Document, Manager
from relaymgr.cli.names import names
from relaymgr.cli.output import Cell, Row, age, at, cell, count, flag, print_pairs, since, until, words


def relay_row(relay: Document) -> Row:
    """NAME PLATFORM HOST STATE TUNNELS CHANNELS DRIFT INTENT SEEN NOTE."""
    stale = bool(relay["stale"]) or relay["reachability"] != "reachable"
    style = "yellow" if stale else ""
    return (
        relay["name"],
        relay["platform"],
        relay["host"],
        relay["reachability"],
        Text(count(relay["active_tunnels"]) or "-", style=style),
        Text(count(relay["active_channels"]) or "-", style=style),
        relay["drift_state"],
        intent_state(relay),
        Text(age(relay["age_seconds"]) or "never", style=style),
        note(relay),
    )


def intent_state(relay: Document) -> str:
    """Which version of the intent is on the device."""
    if relay["intent_version"] == 0:
        return "none given"
    applied = relay["applied_intent_version"]
    if applied == relay["intent_version"]:
        return f"v{applied} applied"
    return f"v{relay['intent_version']} not applied" + ("" if applied is None else f" (v{applied} is)")


def note(relay: Document) -> str | None:
    """What an operator should know first."""
    notes = []
    if not relay["enabled"]:
        notes.append("disabled")
    if relay["drained"]:
        notes.append("drained")
    if relay["window_job_id"]:
        notes.append(f"confirm window open, {until(relay['window_until']) or '-'} left")
    if relay["host_key"] is None and "://" not in relay["host"]:
        notes.append("no host key pinned")
    if relay["reachability_reason"]:
        notes.append(relay["reachability_reason"])
    notes += [f"{part} stale: {reason}" for part, reason in sorted(relay["stale"].items())]
    return words(notes)


def print_relay(manager: Manager, relay: Document) -> None:
    """Everything known of a relay."""
    facts = relay["facts"] or {}
    port = "" if relay["port"] is None else f" port {relay['port']}"
    device = words([str(facts[key]) for key in ("model", "version", "serial") if facts.get(key)])
    pairs: list[tuple[str, Cell]] = [
        ("name", relay["name"]),
        ("id", relay["id"]),
        ("platform", relay["platform"]),
        ("host", f"{relay['host']}{port}"),
        ("NETCONF port", relay["netconf_port"]),
        ("host key", relay["host_key_fingerprint"]),
        ("AD", _name(manager, "ads", relay["ad_id"])),
        ("site", _name(manager, "sites", relay["site_id"])),
        ("credential", _name(manager, "credentials", relay["credential_id"])),
        ("labels", words([f"{name}={value}" for name, value in sorted(relay["labels"].items())])),
        ("enabled", flag(relay["enabled"])),
        ("device", device),
        ("hostname", facts.get("hostname")),
        ("device up", age(facts.get("uptime_seconds"))),
        ("state", _state(relay)),
        ("last good poll", _polled(relay)),
        ("tunnels", count(relay["active_tunnels"])),
        ("channels", count(relay["active_channels"])),
        ("drained", flag(relay["drained"])),
        ("intent", intent_state(relay)),
        ("drift", f"{relay['drift_state']}, looked for {_ago(relay['drift_checked_at'])}"),
        ("confirm window", _window(relay)),
    ]
    pairs += [(f"stale {part}", Text(reason, style="yellow")) for part, reason in sorted(relay["stale"].items())]
    print_pairs(pairs + _capabilities(relay["capabilities"]))


def _capabilities(capabilities: Document | None) -> list[tuple[str, Cell]]:
    """What the device can be asked for, and why not the rest."""
    if capabilities is None:
        return [("capabilities", None)]
    missing = sorted(capabilities.get("reasons", {}).items())
    supported = words(sorted(capabilities.get("supported", [])))
    return [("capabilities", supported), *((f"no {name}", reason) for name, reason in missing)]


def _state(relay: Document) -> Text:
    state = cell(relay["reachability"])
    if relay["reachability_reason"]:
        state.append(f": {relay['reachability_reason']}")
    return state


def _polled(relay: Document) -> str | None:
    if relay["polled_at"] is None:
        return None
    took = "" if relay["poll_seconds"] is None else f", took {relay['poll_seconds']:.2f}s"
    return f"{age(relay['age_seconds'])} ago ({at(relay['polled_at'])}){took}, every {relay['poll_interval_seconds']}s"


def _window(relay: Document) -> str | None:
    if relay["window_job_id"] is None:
        return None
    return f"open, {until(relay['window_until']) or '-'} left, job {relay['window_job_id']}"


def _ago(moment: str | None) -> str:
    return "never" if moment is None else f"{since(moment)} ago"


def _name(manager: Manager, collection: str, identifier: str | None) -> str | None:
    return None if identifier is None else names(manager, collection, [identifier])[identifier]
