"""`relaymgr ad` and `relaymgr site`: who owns relays and gateways, and where relays stand."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import click

from relaymgr.cli.client import Document, Manager
from relaymgr.cli.names import names, optional, resource
from relaymgr.cli.options import HELP, as_json, limit_options, manager_options, yes
from relaymgr.cli.output import at, print_json, print_listing, print_pairs, words
from relaymgr.cli.resources import add, change, delete, given, listing


@click.group(context_settings=HELP)
def ad() -> None:
    """Administrative domains: who owns relays, and whose prefixes gateways come from.

    \b
    Example:
      relaymgr ad add example --asn 64500 --prefix 203.0.113.0/24 --contact noc@example.net
      relaymgr ad list
    """


@ad.command("add")
@click.argument("name")
@click.option("--asn", type=click.IntRange(1, 4294967294), help="Autonomous system number.")
@click.option("--contact", metavar="TEXT", help="Whom to tell when its tunnels fail.")
@click.option("--prefix", "prefixes", multiple=True, metavar="PREFIX", help="Address space of gateways; repeat it.")
@as_json
@manager_options
def add_ad(
    manager: Manager, name: str, asn: int | None, contact: str | None, prefixes: tuple[str, ...], as_json: bool
) -> None:
    """Add an AD. A gateway belongs to the AD with the longest prefix that holds its address.

    \b
    Example:
      relaymgr ad add example --asn 64500 --prefix 203.0.113.0/24 --prefix 2001:db8::/32
    """
    add(manager, "ads", given(name=name, asn=asn, contact=contact, prefixes=list(prefixes)), as_json)


@ad.command("set")
@click.argument("ad")
@click.option("--name", help="Another name.")
@click.option("--asn", type=click.IntRange(1, 4294967294), help="Autonomous system number.")
@click.option("--contact", metavar="TEXT", help="Whom to tell when its tunnels fail.")
@click.option("--prefix", "prefixes", multiple=True, metavar="PREFIX", help="All its prefixes from now on; repeat it.")
@as_json
@manager_options
def set_ad(
    manager: Manager,
    ad: str,
    name: str | None,
    asn: int | None,
    contact: str | None,
    prefixes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Change an AD; what is not given stays.

    \b
    Example:
      relaymgr ad set example --contact noc@example.net
    """
    change(manager, "ads", ad, given(name=name, asn=asn, contact=contact, prefixes=list(prefixes) or None), as_json)


@ad.command("list")
@limit_options
@as_json
@manager_options
def list_ads(manager: Manager, limit: int, everything: bool, as_json: bool) -> None:
    """List the ADs the token may see.

    \b
    Example:
      relaymgr ad list --json | jq -r '.items[].name'
    """
    found = listing(manager, "ads", limit, everything)
    if as_json:
        print_json(found)
        return
    rows = [(row["name"], row["asn"], _some(row["prefixes"]), row["contact"], row["id"]) for row in found["items"]]
    print_listing(found, ["NAME", ">ASN", "PREFIXES", "CONTACT", "ID"], rows, "no ADs: relaymgr ad add")


@ad.command("show")
@click.argument("ad")
@as_json
@manager_options
def show_ad(manager: Manager, ad: str, as_json: bool) -> None:
    """Show an AD, given by name or identifier.

    \b
    Example:
      relaymgr ad show example
    """
    found = resource(manager, "ads", ad)
    if as_json:
        print_json(found)
        return
    print_pairs(
        [
            ("name", found["name"]),
            ("id", found["id"]),
            ("ASN", found["asn"]),
            ("contact", found["contact"]),
            ("prefixes", words(found["prefixes"])),
            ("changed", at(found["updated_at"])),
        ]
    )


@ad.command("delete")
@click.argument("ad")
@yes
@manager_options
def delete_ad(manager: Manager, ad: str, yes: bool) -> None:
    """Delete an AD that owns nothing any more.

    \b
    Example:
      relaymgr ad delete example
    """
    delete(manager, "ads", ad, yes)


@click.group(context_settings=HELP)
def site() -> None:
    """Places with relays.

    \b
    Example:
      relaymgr site add fra1 --location "Frankfurt, rack 12"
    """


@site.command("add")
@click.argument("name")
@click.option("--location", metavar="TEXT", help="Where it is, in words.")
@click.option("--ad", metavar="AD", help="AD that owns it, by name or identifier.")
@as_json
@manager_options
def add_site(manager: Manager, name: str, location: str | None, ad: str | None, as_json: bool) -> None:
    """Add a site.

    \b
    Example:
      relaymgr site add fra1 --location "Frankfurt, rack 12" --ad example
    """
    add(manager, "sites", given(name=name, location=location, ad_id=optional(manager, "ads", ad)), as_json)


@site.command("set")
@click.argument("site")
@click.option("--name", help="Another name.")
@click.option("--location", metavar="TEXT", help="Where it is, in words.")
@click.option("--ad", metavar="AD", help="AD that owns it, by name or identifier.")
@as_json
@manager_options
def set_site(
    manager: Manager, site: str, name: str | None, location: str | None, ad: str | None, as_json: bool
) -> None:
    """Change a site; what is not given stays.

    \b
    Example:
      relaymgr site set fra1 --location "Frankfurt, rack 14"
    """
    changes = given(name=name, location=location, ad_id=optional(manager, "ads", ad))
    change(manager, "sites", site, changes, as_json)


@site.command("list")
@limit_options
@as_json
@manager_options
def list_sites(manager: Manager, limit: int, everything: bool, as_json: bool) -> None:
    """List sites.

    \b
    Example:
      relaymgr site list
    """
    found = listing(manager, "sites", limit, everything)
    if as_json:
        print_json(found)
        return
    ads = names(manager, "ads", (row["ad_id"] for row in found["items"]))
    rows = [(row["name"], row["location"], ads.get(row["ad_id"]), row["id"]) for row in found["items"]]
    print_listing(found, ["NAME", "LOCATION", "AD", "ID"], rows, "no sites: relaymgr site add")


@site.command("show")
@click.argument("site")
@as_json
@manager_options
def show_site(manager: Manager, site: str, as_json: bool) -> None:
    """Show a site, given by name or identifier.

    \b
    Example:
      relaymgr site show fra1
    """
    found: Document = resource(manager, "sites", site)
    if as_json:
        print_json(found)
        return
    ads = names(manager, "ads", [found["ad_id"]])
    print_pairs(
        [
            ("name", found["name"]),
            ("id", found["id"]),
            ("location", found["location"]),
            ("AD", ads.get(found["ad_id"])),
            ("changed", at(found["updated_at"])),
        ]
    )


@site.command("delete")
@click.argument("site")
@yes
@manager_options
def delete_site(manager: Manager, site: str, yes: bool) -> None:
    """Delete a site without relays.

    \b
    Example:
      relaymgr site delete fra1
    """
    delete(manager, "sites", site, yes)


def _some(prefixes: list[str], shown: int = 3) -> str | None:
    """The first prefixes and how many more there are."""
    more = len(prefixes) - shown
    return words(prefixes[:shown] + ([f"… {more} more"] if more > 0 else []))
