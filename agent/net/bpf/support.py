"""What this host can do with programs in the kernel, found out without touching an interface."""

from __future__ import annotations

import errno
import os
from typing import Final

from agent.net.bpf.errors import BpfError, BpfUnavailableError
from agent.net.bpf.library import ffi, library
from agent.net.bpf.library import version as library_version
from agent.net.bpf.links import has_tcx
from agent.net.bpf.maps import MapKind, create_map

_TC_PROGRAM: Final = 3  # enum bpf_prog_type, BPF_PROG_TYPE_SCHED_CLS
_RETURN_ZERO: Final = bytes.fromhex("b7000000000000009500000000000000")


def missing_library() -> str | None:
    """Why there is no libbpf to use; None when there is."""
    try:
        library_version()
    except BpfUnavailableError as error:
        return str(error)
    return None


def refused() -> str | None:
    """Why the kernel does not take maps of ours; None when it does.

    Raises:
        BpfUnavailableError: there is no libbpf to ask with.
    """
    try:
        create_map(MapKind.ARRAY, "isthmus_try", 4, 8, 1).close()
    except BpfError as error:
        if error.errno == errno.ENOSYS:
            return "this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)"
        return str(error.strerror)
    return None


def tcx() -> bool | None:
    """Whether the kernel has tcx (Linux 6.6); None when it does not take programs of ours at all.

    Raises:
        BpfUnavailableError: there is no libbpf to ask with.
    """
    code = library().bpf_prog_load(_TC_PROGRAM, b"isthmus_try", b"GPL", _RETURN_ZERO, 2, ffi.NULL)
    if code < 0:
        return None
    try:
        return has_tcx(code)
    finally:
        os.close(code)
