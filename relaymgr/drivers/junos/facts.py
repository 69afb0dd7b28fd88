"""Identity of a Junos device."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from relaymgr.domain.observed import Facts
from relaymgr.drivers.netconf.documents import descendants

QUERIES = (
    "<get-system-information/>",
    "<get-software-information/>",
    "<get-chassis-inventory/>",
    "<get-system-uptime-information/>",
)


def read(replies: Iterable[etree._Element]) -> Facts:
    """What `replies` to QUERIES tell; a device need not know all of them."""
    roots = list(replies)
    return Facts(
        hostname=_first(roots, "host-name"),
        model=_first(roots, "hardware-model") or _first(roots, "product-model"),
        version=_first(roots, "os-version") or _first(roots, "junos-version"),
        serial=_first(roots, "serial-number"),
        uptime_seconds=_uptime(roots),
    )


def _first(roots: list[etree._Element], name: str) -> str | None:
    for root in roots:
        for element in descendants(root, name):
            if element.text and element.text.strip():
                return element.text.strip()
    return None


def _uptime(roots: list[etree._Element]) -> int | None:
    """Seconds between `system-booted-time` and `current-time`, both of the device's clock."""
    now, booted = _clock(roots, "current-time"), _clock(roots, "system-booted-time")
    return None if now is None or booted is None or now < booted else now - booted


def _clock(roots: list[etree._Element], name: str) -> int | None:
    for root in roots:
        for element in descendants(root, name):
            for time in descendants(element, "date-time"):
                for key, value in time.attrib.items():
                    if str(key).rpartition("}")[2] == "seconds" and str(value).isdigit():
                        return int(value)
    return None
