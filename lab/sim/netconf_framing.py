"""NETCONF message framing without IO: end-of-message (RFC 6242 section 4.3) and chunked (section 4.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

END_OF_MESSAGE: Final = b"]]>]]>"
_CHUNK_HEADER: Final = re.compile(rb"\n#(?:([1-9][0-9]{0,9})|#)\n")
_PART_OF_HEADER: Final = re.compile(rb"(?:\n(?:#(?:[1-9][0-9]{0,9}|#)?)?)?")
_MOST: Final = 64 << 20


class FramingError(ValueError):
    """The peer broke the framing; the session cannot go on (RFC 6242 section 4.2)."""


class Deframer:
    """Cuts a byte stream into messages. Both sides start with end-of-message framing.

    Attributes:
        chunked: set after the hellos when both sides know base:1.1.
    """

    def __init__(self) -> None:
        self.chunked = False
        self._buffer = bytearray()
        self._message = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._buffer += data
        if len(self._buffer) + len(self._message) > _MOST:
            raise FramingError("message too big")

    def messages(self) -> Iterator[bytes]:
        """The messages that are complete; `chunked` may be set between two of them.

        Raises:
            FramingError: bytes between chunks.
        """
        while (message := self._next_chunked() if self.chunked else self._next_marked()) is not None:
            yield message

    def _next_marked(self) -> bytes | None:
        end = self._buffer.find(END_OF_MESSAGE, self._searched)
        if end < 0:
            self._searched = max(0, len(self._buffer) - len(END_OF_MESSAGE))
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[: end + len(END_OF_MESSAGE)]
        self._searched = 0
        return message

    def _next_chunked(self) -> bytes | None:
        while True:
            header = _CHUNK_HEADER.match(self._buffer)
            if header is None:
                if not _PART_OF_HEADER.fullmatch(self._buffer):
                    raise FramingError("no chunk header where one belongs")
                return None
            if header[1] is None:
                message = bytes(self._message)
                self._message.clear()
                del self._buffer[: header.end()]
                return message
            end = header.end() + int(header[1])
            if len(self._buffer) < end:
                return None
            self._message += self._buffer[header.end() : end]
            del self._buffer[:end]


def frame(message: bytes, *, chunked: bool) -> bytes:
    """Wrap one message."""
    if not chunked:
        return message + END_OF_MESSAGE
    return b"\n#%d\n%b\n##\n" % (len(message), message)
