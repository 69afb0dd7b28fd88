"""Attach programs to interfaces, so that they are gone with the process however it ends."""

from __future__ import annotations

import errno
import os
import socket
import struct
from types import TracebackType
from typing import Final, Self

from agent.net.bpf.clsact import add_filter, remove_filters
from agent.net.bpf.errors import NOT_SUPPORTED, BpfError, failure
from agent.net.bpf.library import ffi, library
from agent.net.bpf.objects import BpfObject

_XDP: Final = 37  # enum bpf_attach_type
_TCX_INGRESS: Final = 46
_GENERIC: Final = 1 << 1  # XDP_FLAGS_SKB_MODE
_NATIVE: Final = 1 << 2  # XDP_FLAGS_DRV_MODE
_NO_TCX: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, NOT_SUPPORTED})

ENTRY: Final = "_entry"
"""What the name of a program's dispatcher ends in."""

DISPATCHED: Final = "tc_programs"
"""The map a dispatcher jumps through."""


class Link:
    """A program at an interface.

    Attributes:
        kind: "xdp", "xdp-generic", "tcx" or "clsact".
        ifindex: the interface; when it goes away, the link is of no use any more but must be closed all the same.
    """

    def __init__(self, kind: str, ifindex: int, fd: int = -1) -> None:
        self.kind = kind
        self.ifindex = ifindex
        self._fd = fd

    def fileno(self) -> int:
        """Descriptor of the link, -1 for a filter."""
        return self._fd

    def close(self) -> None:
        """Detach; nothing happens when that was done, or when the interface is gone."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        elif self.kind == "clsact" and self.ifindex:
            remove_filters(self.ifindex)
            self.ifindex = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def attach_xdp(program: int, ifindex: int, *, generic: bool = False) -> Link:
    """Attach an XDP program.

    Args:
        program: its descriptor.
        ifindex: the interface, in our network namespace.
        generic: behind the driver, which every Ethernet interface can; else the driver must run it.

    Raises:
        BpfError: EOPNOTSUPP when the driver cannot, EBUSY when another program is there, ERANGE when the MTU is too
            large for the driver, ENODEV when there is no such interface.
    """
    fd = _create_link(program, ifindex, _XDP, _GENERIC if generic else _NATIVE)
    if fd == -errno.EINVAL and not _exists(ifindex):  # what the kernel means by it here
        fd = -errno.ENODEV
    if fd < 0:
        raise failure(f"attaching an XDP program to interface {ifindex}", fd)
    return Link("xdp-generic" if generic else "xdp", ifindex, fd)


def attach_tc(loaded: BpfObject, program: str, ifindex: int, *, clsact: bool | None = None) -> Link:
    """Attach a TC program to what comes in by an interface.

    From Linux 6.6 on it is a link of its own (tcx). Before, filters belong to the interface and outlive who set them:
    what is set there is the dispatcher `PROGRAM_entry`, which jumps to the program through the map `tc_programs`. The
    kernel empties that map when its last descriptor is closed, so that the filter does nothing any more.

    Args:
        loaded: the object with program, dispatcher and map.
        program: name of the program.
        ifindex: the interface, in our network namespace.
        clsact: True to use a filter, False to use nothing else than tcx, None for what the kernel has.

    Raises:
        BpfError: the kernel refused; ENODEV when there is no such interface.
        KeyError: the object has not what it takes.
    """
    if clsact is not True:
        fd = _create_link(loaded.program(program), ifindex, _TCX_INGRESS, 0)
        if fd >= 0:
            remove_filters(ifindex)  # of a process that used the other way and was killed
            return Link("tcx", ifindex, fd)
        if clsact is False or abs(fd) not in _NO_TCX:
            raise failure(f"attaching a TC program to interface {ifindex}", fd)
    loaded.map(DISPATCHED).update(0, struct.pack("=I", loaded.program(program)))
    add_filter(ifindex, loaded.program(program + ENTRY))
    return Link("clsact", ifindex)


def has_tcx(program: int) -> bool:
    """Whether this kernel has tcx, found out with a TC program and an interface that cannot be."""
    fd = _create_link(program, 0x7FFF_FFFF, _TCX_INGRESS, 0)
    return fd == -errno.ENODEV


def _exists(ifindex: int) -> bool:
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True


def _create_link(program: int, ifindex: int, kind: int, flags: int) -> int:
    if ifindex <= 0:
        raise BpfError(errno.ENODEV, f"no interface has index {ifindex}")
    options = ffi.new("struct bpf_link_create_opts *", {"flags": flags})
    options.sz = ffi.sizeof("struct bpf_link_create_opts")
    return int(library().bpf_link_create(program, ifindex, kind, options))
