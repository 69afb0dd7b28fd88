"""Which hosts are this machine itself, where nothing crosses a network."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address


def is_loopback(host: str | None) -> bool:
    """Whether `host`, `localhost` or an address without port and brackets, is loopback. No name is looked up."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ip_address(host or "").is_loopback
    return False
