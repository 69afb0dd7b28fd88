"""What can go wrong with programs in the kernel."""

from __future__ import annotations

import errno
import os
from typing import Final

NOT_SUPPORTED: Final = 524
"""ENOTSUPP, the kernel's own, which Python has no name for."""


class BpfUnavailableError(Exception):
    """This host cannot run the programs: the message says what is missing and what to do about it."""


class BpfError(OSError):
    """One call of the kernel's failed; `errno` says how, the message at what."""


def failure(doing: str, code: int) -> BpfError:
    """The error of a call that returned `code`, a negative errno; what to do about it where that is known."""
    number = abs(code)
    advice = {
        errno.EPERM: " (needs CAP_BPF and CAP_NET_ADMIN)",
        errno.E2BIG: " (the map is full)",
        errno.EMFILE: " (too many open files: raise LimitNOFILE)",
    }.get(number, "")
    return BpfError(number, f"{doing}: {os.strerror(number)}{advice}")
