"""Kernel settings under /proc/sys, of the network namespace the process is in."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/proc/sys")


def read_sysctl(*names: str) -> str | None:
    """Value of a setting, or None where this kernel has no such setting.

    `names` are the parts of the path, so that an interface name may contain a dot: `("net", "ipv4", "conf", "eth0.7")`.
    """
    try:
        return _ROOT.joinpath(*names).read_text(encoding="ascii").strip()
    except OSError:
        return None


def write_sysctl(*names: str, value: str) -> bool:
    """Set a setting; False where the kernel or the sandbox does not let us."""
    try:
        _ROOT.joinpath(*names).write_text(value, encoding="ascii")
    except OSError:
        return False
    return True
