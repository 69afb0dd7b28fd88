"""`relaymgr relay`: enrolment, listing, settings. Changes of what a relay is are in `changes`, intents in `intents`."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import click

from relaymgr.cli.client import Document, Manager, segment
from relaymgr.cli.host_keys import Trust, decide, has_host_key, scan, ssh_port, trust_options
from relaymgr.cli.names import identifier, optional, resource
from relaymgr.cli.options import HELP, Command, as_json, limit_options, manager_options, yes
from relaymgr.cli.output import print_json, print_listing
from relaymgr.cli.relay_views import print_relay, relay_row
from relaymgr.cli.resources import add, change, delete, given, listing

PLATFORMS = click.Choice(["junos", "iosxe", "ios", "isthmus"])
_REACHABILITY = click.Choice(["unknown", "reachable", "unreachable"])
_DRIFT = click.Choice(["unknown", "none", "drifted", "unmanaged"])
_PORT = click.IntRange(1, 65535)
_SECONDS = click.FloatRange(1, 600)
_HEADERS = ["NAME", "PLATFORM", "HOST", "STATE", ">TUNNELS", ">CHANNELS", "DRIFT", "INTENT", "SEEN", "NOTE"]


@click.group(context_settings=HELP)
def relay() -> None:
    """Relays: enrol them, say what they shall be, change them with a way back.

    \b
    A first change, from nothing:
      relaymgr credential add mx80 --username isthmus
      relaymgr relay add mx1 --platform junos --host mx1.example.net --credential mx80
      relaymgr relay intent put mx1 mx1.yaml
      relaymgr relay plan mx1
      relaymgr relay apply mx1 --confirm-minutes 5 --comment "first relay" --ticket NOC-4711
    """


def settings_options(command: Command) -> Command:
    """What may be said of a relay when it is added and later."""
    for option in (
        click.option("--enable/--disable", "enabled", default=None, help="Whether it is polled and may be changed."),
        click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="For people; repeat it."),
        click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Of the driver; repeat it."),
        click.option("--poll-interval", "poll_interval_seconds", type=click.IntRange(5, 86400), help="Seconds."),
        click.option("--commit-timeout", "commit_timeout_seconds", type=_SECONDS, help="Seconds for a commit."),
        click.option("--rpc-timeout", "rpc_timeout_seconds", type=_SECONDS, help="Seconds for one request."),
        click.option("--connect-timeout", "connect_timeout_seconds", type=_SECONDS, help="Seconds for a session."),
        click.option("--legacy-ssh/--no-legacy-ssh", default=None, help="Offer what aged MX80 releases need."),
        click.option("--site", metavar="SITE", help="Where it stands."),
        click.option("--ad", metavar="AD", help="AD that owns it."),
        click.option("--credential", metavar="CREDENTIAL", help="How to log in."),
        click.option("--netconf-port", type=_PORT, help="IOS-XE: port of NETCONF, where it is on."),
        click.option("--port", type=_PORT, help="SSH port, 22 unless given; Junos: NETCONF, 830 unless given."),
    ):
        command = option(command)
    return command


@relay.command("add")
@click.argument("name")
@click.option("--platform", type=PLATFORMS, required=True, help="Which driver talks to it; stays for good.")
@click.option("--host", required=True, help="Name or address; Isthmus's own relay: https://… or unix:///path.")
@settings_options
@click.option("--host-key", "known_key", metavar="LINE", help="The key itself, 'ssh-ed25519 AAAA…'; not scanned.")
@trust_options
@click.option("--no-host-key", is_flag=True, help="Pin none yet: nothing connects until `relay scan --pin`.")
@as_json
@manager_options
def add_relay(
    manager: Manager,
    /,
    name: str,
    platform: str,
    host: str,
    known_key: str | None,
    fingerprint: str | None,
    any_key: bool,
    no_host_key: bool,
    as_json: bool,
    **settings: object,
) -> None:
    """Add a relay: scans its host key, shows the fingerprint, and asks before pinning it.

    Nothing logs in before a key is pinned. For scripts, give the fingerprint read on the device's console
    (Junos: `show ssh ...`, or ssh-keygen -l on its public key).

    \b
    Examples:
      relaymgr relay add mx1 --platform junos --host mx1.example.net --credential mx80 --ad example
      relaymgr relay add xe1 --platform iosxe --host 192.0.2.9 --netconf-port 830 --credential xe \\
          --accept-host-key SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDbUZLDQfKtNuHCXKU
      relaymgr relay add edge --platform isthmus --host https://edge.example.net:8443 --credential edge
    """
    document = given(name=name, platform=platform, host=host) | _settings(manager, settings)
    if known_key is not None:
        document["host_key"] = known_key
    elif has_host_key(host) and not no_host_key:
        port = ssh_port(platform, document.get("port"))
        presented = scan(
            manager,
            host,
            port,
            legacy_ssh=bool(document.get("legacy_ssh")),
            timeout_seconds=document.get("connect_timeout_seconds"),
        )
        document["host_key"] = decide(presented, f"{host} port {port}", Trust(fingerprint, any_key))
    add(manager, "relays", document, as_json)


@relay.command("set")
@click.argument("relay")
@click.option("--name", help="Another name.")
@click.option("--host", help="Another name, address or URL; the pinned key stays.")
@settings_options
@as_json
@manager_options
def set_relay(
    manager: Manager, /, relay: str, name: str | None, host: str | None, as_json: bool, **settings: object
) -> None:
    """Change how a relay is reached and kept; what is not given stays. --label and --option replace all of theirs.

    \b
    Examples:
      relaymgr relay set mx1 --poll-interval 60 --label region=eu
      relaymgr relay set mx1 --disable
    """
    change(manager, "relays", relay, given(name=name, host=host) | _settings(manager, settings), as_json)


@relay.command("list")
@click.option("--platform", type=PLATFORMS, help="Only of this platform.")
@click.option("--ad", metavar="AD", help="Only of this AD.")
@click.option("--site", metavar="SITE", help="Only at this site.")
@click.option("--state", "reachability", type=_REACHABILITY, help="Only so reachable.")
@click.option("--drift", "drift_state", type=_DRIFT, help="Only in this state of drift.")
@click.option("--drained/--not-drained", default=None, help="Only drained ones, or only others.")
@limit_options
@as_json
@manager_options
def list_relays(
    manager: Manager,
    platform: str | None,
    ad: str | None,
    site: str | None,
    reachability: str | None,
    drift_state: str | None,
    drained: bool | None,
    limit: int,
    everything: bool,
    as_json: bool,
) -> None:
    """List relays. SEEN is the age of the last good poll; NOTE says why what is shown is not fresh.

    \b
    Examples:
      relaymgr relay list
      relaymgr relay list --state unreachable
      relaymgr relay list --drift drifted --json | jq -r '.items[].name'
    """
    found = listing(
        manager,
        "relays",
        limit,
        everything,
        platform=platform,
        ad_id=optional(manager, "ads", ad),
        site_id=optional(manager, "sites", site),
        reachability=reachability,
        drift_state=drift_state,
        drained=None if drained is None else str(drained).lower(),
        sort="name",
    )
    if as_json:
        print_json(found)
        return
    print_listing(found, _HEADERS, [relay_row(row) for row in found["items"]], "no relays: relaymgr relay add")


@relay.command("show")
@click.argument("relay")
@as_json
@manager_options
def show_relay(manager: Manager, relay: str, as_json: bool) -> None:
    """Show a relay: settings, what is known of it, and since when.

    \b
    Example:
      relaymgr relay show mx1
    """
    found = resource(manager, "relays", relay)
    if as_json:
        print_json(found)
    else:
        print_relay(manager, found)


@relay.command("delete")
@click.argument("relay")
@yes
@manager_options
def delete_relay(manager: Manager, relay: str, yes: bool) -> None:
    """Forget a relay. The device keeps its configuration; nobody looks after it any more.

    \b
    Example:
      relaymgr relay delete mx1
    """
    delete(manager, "relays", relay, yes, "The device keeps its configuration; what was observed of it is gone.")


@relay.command("scan")
@click.argument("relay")
@click.option("--pin", is_flag=True, help="Pin the presented key in place of the old one, after asking.")
@trust_options
@as_json
@manager_options
def scan_relay(manager: Manager, relay: str, pin: bool, fingerprint: str | None, any_key: bool, as_json: bool) -> None:
    """Read a relay's host key without logging in, and compare it with the pinned one.

    \b
    Exit status: 0 it is the pinned one, or was pinned now; 1 it is another, or none is pinned.

    \b
    Examples:
      relaymgr relay scan mx1
      relaymgr relay scan mx1 --pin
      relaymgr relay scan mx1 --pin --accept-host-key SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDbUZLDQfKtNuHCXKU
    """
    path = f"/relays/{segment(identifier(manager, 'relays', relay))}"
    answer = manager.fetch(path)
    found: Document = answer.document
    if not has_host_key(found["host"]):
        raise click.UsageError(f"{found['name']} is reached by {found['host']}, which has no SSH host key")
    port = ssh_port(found["platform"], found["port"])
    where = f"{found['host']} port {port}"
    presented = scan(manager, found["host"], port, legacy_ssh=found["legacy_ssh"])
    pinned = found["host_key"]
    same = pinned == presented["host_key"]
    if pin and not same:
        line = decide(presented, where, Trust(fingerprint, any_key))
        manager.send("PATCH", path, {"host_key": line}, etag=answer.etag)
        pinned, same = line, True
    if as_json:
        print_json({**presented, "pinned": pinned, "matches": same})
    elif same:
        click.echo(f"{where} presents {presented['fingerprint']}, as pinned")
    else:
        was = found["host_key_fingerprint"] or "none"
        click.echo(f"{where} presents {presented['fingerprint']}; pinned: {was} (relaymgr relay scan {relay} --pin)")
    if not same:
        raise SystemExit(1)


def _settings(manager: Manager, settings: dict[str, object]) -> Document:
    """The settings given, with names made into identifiers and pairs into objects."""
    members = {name: value for name, value in settings.items() if value is not None and value != ()}
    for option, collection in (("ad", "ads"), ("site", "sites"), ("credential", "credentials")):
        word = members.pop(option, None)
        if word is not None:
            members[f"{option}_id"] = identifier(manager, collection, str(word))
    for option in ("labels", "options"):
        if option in members:
            pairs = members[option]
            assert isinstance(pairs, tuple)
            members[option] = dict(_pair(str(pair)) for pair in pairs)
    return members


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"{text} is not of the form NAME=VALUE")
    return name, value
