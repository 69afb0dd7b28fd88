"""What something costs, counted instead of timed: the same on every machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable


def count_calls(action: Callable[[], object]) -> int:
    """Functions called while `action` runs, those written in C included."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()  # a collection calls whoever asked to be told of it
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()
    return calls
