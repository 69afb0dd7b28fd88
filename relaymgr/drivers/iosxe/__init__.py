"""Cisco IOS-XE: configured over SSH, watched over NETCONF or SSH."""

from __future__ import annotations

from relaymgr.drivers.iosxe.driver import IosxeDriver

__all__ = ["IosxeDriver"]
