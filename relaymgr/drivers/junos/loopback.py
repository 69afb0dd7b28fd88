"""Which address of a loopback speaks for the router, and that no change of ours moves it.

Of several addresses on a unit of lo0 Junos takes the one marked `primary`, else the lowest that is not of 127/8. It
becomes the router's identifier where none is configured, and the source of what the router sends by itself (PIM
Registers, sessions bound to lo0). An anycast address must never become that: routers with the same identifier break
OSPF and BGP, answers go to another relay, and a drain would change it under running sessions. So where the operator
marked none, a change that would move it is refused, with the statement to configure first.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Interface

from lxml import etree

from relaymgr.drivers.junos.scope import Path, locate, paths
from relaymgr.drivers.netconf.documents import child_text, children, descendants

OPERATORS_FLAGS = frozenset({"primary", "preferred"})
_ADDRESS_STEPS = ("interfaces", "interface", "unit", "family", "inet", "address")


def is_address(path: Path) -> bool:
    """Whether `path` is one address of a loopback unit."""
    return tuple(name for name, _ in path.steps) == _ADDRESS_STEPS and path.steps[1][1] == "lo0"


def own_address(unit: etree._Element) -> IPv4Address | None:
    """The address of a loopback unit that speaks for the router; None where it has none."""
    found: list[IPv4Address] = []
    inet = locate(unit, Path((("family", None), ("inet", None))))
    for entry in children(inet, "address") if inet is not None else ():
        try:
            address = IPv4Interface(child_text(entry, "name") or "").ip
        except (AddressValueError, ValueError):
            continue
        if entry.get("inactive") is not None or address.is_loopback:
            continue
        if next(children(entry, "primary"), None) is not None:
            return address
        found.append(address)
    return min(found, default=None)


def moved_identity(committed: etree._Element, candidate: etree._Element, scope: tuple[str, ...]) -> str | None:
    """Why `candidate` would change which address speaks for the router, and what to configure first; None if not."""
    for unit in sorted({Path(path.steps[:3]) for path in paths(scope) if is_address(path)}, key=str):
        before, after = locate(committed, unit), locate(candidate, unit)
        if after is None or (now := own_address(after)) is None:
            continue
        was = own_address(before) if before is not None else None
        still_there = was is not None and _has(after, was)
        if now != was and (still_there or _is_anycast(candidate, now)):
            name = f"lo0 unit {unit.steps[2][1]}"
            keep = f"{was}/32" if still_there else "<its own address>/32"
            return (
                f"{now} would become the address that speaks for the router (its identifier and source): of the "
                f"addresses of {name} none is marked, and it is the lowest. Configure first: "
                f"set interfaces {name} family inet address {keep} primary"
            )
    return None


def _has(unit: etree._Element, address: IPv4Address) -> bool:
    names = {child_text(entry, "name") or "" for entry in descendants(unit, "address")}
    return any(name.partition("/")[0] == str(address) for name in names)


def _is_anycast(root: etree._Element, address: IPv4Address) -> bool:
    prefixes = [element.text or "" for element in descendants(root, "anycast-prefix")]
    return any(address in IPv4Interface(prefix).network for prefix in prefixes)
