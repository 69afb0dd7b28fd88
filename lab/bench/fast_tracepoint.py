"""Frames redirected to devices, as the tracepoint xdp:xdp_devmap_xmit tells (lab/bpf/devmap_xmit.bpf.c)."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agent.net.bpf import BpfObject
from lab.bench.fast_objects import load_lab

_SYSTEM_CALL: Final = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)  # bpf(2)
_OPEN: Final = 17  # BPF_RAW_TRACEPOINT_OPEN
_HANDED: Final = struct.Struct("=QQ")


class Handed:
    """Frames handed to devices since it was opened."""

    def __init__(self, loaded: BpfObject) -> None:
        self._handed = loaded.map("handed")
        self._indexes = loaded.map("indexes")

    def of(self, index: int) -> dict[bytes, int]:
        """Frames each device took that has an index, which is a namespace's own; by the device's address."""
        wanted = index.to_bytes(4, "little")
        devices = self._indexes.keys()
        found = {}
        for device in devices:
            value = self._handed.lookup(device)
            if value is not None and self._indexes.lookup(device) == wanted:
                found[device] = _HANDED.unpack(value)[0]
        return found


@contextmanager
def handed() -> Iterator[Handed]:
    """Count from here on.

    Raises:
        OSError: the kernel has no such tracepoint or does not let us.
        BpfUnavailableError: it refuses the program.
    """
    with load_lab("devmap_xmit") as loaded:
        descriptor = _open(b"xdp_devmap_xmit", loaded.program("count_handed"))
        try:
            yield Handed(loaded)
        finally:
            os.close(descriptor)


def _open(name: bytes, program: int) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(name)
    attributes = struct.pack("=QI", ctypes.addressof(text), program).ljust(64, b"\0")
    descriptor: int = library.syscall(_SYSTEM_CALL, _OPEN, ctypes.c_char_p(attributes), len(attributes))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"tracepoint {name.decode()}: {os.strerror(number)}")
    return descriptor
