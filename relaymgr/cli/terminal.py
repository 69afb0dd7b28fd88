"""Whether there is somebody to ask. A module of its own, so that tests can say so."""

from __future__ import annotations

import sys


def somebody_there() -> bool:
    """Standard input is a terminal."""
    return sys.stdin.isatty()
