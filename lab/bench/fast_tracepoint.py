"""Frames redirected to devices, as the tracepoint xdp:xdp_devmap_xmit tells (lab/bpf/devmap_xmit.bpf.c)."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.net.bpf import BpfObject
from lab.bench.fast_objects import load_lab
from lab.bench.relay_topology import inside

_SYSTEM_CALL: Final = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)  # bpf(2)
_OPEN: Final = 17  # BPF_RAW_TRACEPOINT_OPEN
_HANDED: Final = struct.Struct("=QQ")
_PLACE: Final = struct.Struct("=II")
_HERE: Final = Path("/proc/thread-self/ns/net")


class Handed:
    """Frames handed to devices since it was opened."""

    def __init__(self, loaded: BpfObject) -> None:
        self._handed = loaded.map("handed")

    def to(self, namespace: str, interface: str) -> tuple[int, int]:
        """Frames an interface took so far, and those it refused as its far end's ring was full."""
        with inside(namespace):
            place = _PLACE.pack(socket.if_nametoindex(interface), _HERE.stat().st_ino)
        value = self._handed.lookup(place)
        taken, refused = _HANDED.unpack(value) if value is not None else (0, 0)
        return taken, refused


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
