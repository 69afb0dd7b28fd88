"""Classic Cisco IOS: watched over SSH; it knows no AMT."""

from __future__ import annotations

from relaymgr.drivers.ios.driver import IosDriver

__all__ = ["IosDriver"]
