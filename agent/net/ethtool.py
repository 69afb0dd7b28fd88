"""What a network driver says of itself: its name, its counters and its features, and features switched on request."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_GET_DRIVER: Final = 0x03
_GET_STRINGS: Final = 0x1B
_GET_STATISTICS: Final = 0x1D
_GET_SET_INFO: Final = 0x37
_GET_FEATURES: Final = 0x3A
_SET_FEATURES: Final = 0x3B
_STATISTICS_NAMES: Final = 1
_FEATURE_NAMES: Final = 4
_NAME_SIZE: Final = 32
_MOST_NAMES: Final = 65_536


class Ethtool:
    """Asks drivers through a socket of its own, and so in the network namespace it was made in."""

    def __init__(self) -> None:
        """Open the socket.

        Raises:
            OSError: no socket could be had.
        """
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def driver(self, interface: str) -> str:
        """Name of the driver, such as `veth`; empty where there is none that tells.

        Raises:
            OSError: no such interface.
        """
        try:
            answer = self._call(interface, struct.pack("=I192x", _GET_DRIVER))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return ""
            raise
        return answer[4:36].split(b"\0", 1)[0].decode(errors="replace")

    def statistics(self, interface: str) -> dict[str, int]:
        """The driver's own counters by name; empty where it has none.

        Raises:
            OSError: no such interface.
        """
        names = self._names(interface, _STATISTICS_NAMES)
        if not names:
            return {}
        answer = self._call(interface, struct.pack(f"=II{8 * len(names)}x", _GET_STATISTICS, len(names)))
        counted = min(struct.unpack_from("=I", answer, 4)[0], len(names))
        return dict(zip(names, struct.unpack_from(f"={counted}Q", answer, 8), strict=False))

    def feature(self, interface: str, name: str) -> bool | None:
        """Whether a feature is on; None where this kernel does not know it.

        Raises:
            OSError: no such interface.
        """
        names = self._names(interface, _FEATURE_NAMES)
        if name not in names:
            return None
        blocks = (len(names) + 31) // 32
        answer = self._call(interface, struct.pack(f"=II{16 * blocks}x", _GET_FEATURES, blocks))
        block, bit = divmod(names.index(name), 32)
        active = struct.unpack_from("=I", answer, 8 + 16 * block + 8)[0]
        return bool(active >> bit & 1)

    def set_feature(self, interface: str, name: str, *, enabled: bool) -> bool:
        """Switch a feature; whether it is then as wanted.

        Raises:
            OSError: no such interface, or not permitted.
        """
        names = self._names(interface, _FEATURE_NAMES)
        if name not in names:
            return False
        blocks = (len(names) + 31) // 32
        block, bit = divmod(names.index(name), 32)
        request = bytearray(struct.pack(f"=II{8 * blocks}x", _SET_FEATURES, blocks))
        struct.pack_into("=II", request, 8 + 8 * block, 1 << bit, int(enabled) << bit)
        self._call(interface, bytes(request))
        return self.feature(interface, name) is enabled

    def _names(self, interface: str, kind: int) -> list[str]:
        """Names of a string set, by their index."""
        try:
            answer = self._call(interface, struct.pack("=IIQ4x", _GET_SET_INFO, 0, 1 << kind))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return []
            raise
        if not struct.unpack_from("=Q", answer, 8)[0]:
            return []
        count = min(struct.unpack_from("=I", answer, 16)[0], _MOST_NAMES)
        answer = self._call(interface, struct.pack(f"=III{_NAME_SIZE * count}x", _GET_STRINGS, kind, count))
        rows = [answer[at : at + _NAME_SIZE] for at in range(12, 12 + _NAME_SIZE * count, _NAME_SIZE)]
        return [row.split(b"\0", 1)[0].decode(errors="replace") for row in rows]

    def _call(self, interface: str, request: bytes) -> bytes:
        value = bytearray(request)
        name = os.fsencode(interface)
        if not 0 < len(name) < 16:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), interface)
        holder = (ctypes.c_char * len(value)).from_buffer(value)
        fcntl.ioctl(self._socket, _SIOCETHTOOL, struct.pack("=16sQ16x", name, ctypes.addressof(holder)))
        return bytes(holder)
