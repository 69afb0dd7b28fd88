"""Junos relays (MX): PyEZ for configuration, our own NETCONF session for what is read."""

from __future__ import annotations

from relaymgr.drivers.junos.driver import JunosDriver

__all__ = ["JunosDriver"]
