"""Socket options that take more than a number."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

_SO_ATTACH_FILTER: Final = 26
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_INSTRUCTION_SIZE: Final = 8  # struct sock_filter


def attach_filter(filtered: socket.socket, program: bytes) -> None:
    """Attach a classic BPF program, given as its instructions one after the other."""
    instructions = ctypes.create_string_buffer(program, len(program))  # must live until setsockopt has copied it
    filtered.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("@HP", len(program) // _INSTRUCTION_SIZE, ctypes.addressof(instructions)),
    )


def set_receive_buffer(sized: socket.socket, size: int) -> int:
    """Ask for a receive buffer of `size` bytes and return what the kernel granted (its own overhead included)."""
    try:
        sized.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:  # without CAP_NET_ADMIN net.core.rmem_max is the limit
        sized.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return sized.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def set_send_buffer(sized: socket.socket, size: int) -> int:
    """Ask for a send buffer of `size` bytes and return what the kernel granted (its own overhead included)."""
    try:
        sized.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
    except PermissionError:
        sized.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    return sized.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
