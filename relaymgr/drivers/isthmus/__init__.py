"""Our own agent in the relay role, over its REST interface."""

from __future__ import annotations

from relaymgr.drivers.isthmus.driver import IsthmusDriver

__all__ = ["IsthmusDriver"]
