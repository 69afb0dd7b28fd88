"""Framing of NETCONF over SSH (RFC 6242), sans IO: end-of-message marks until both sides said 1.1, chunks after."""

from __future__ import annotations

END_OF_MESSAGE = b"]]>]]>"
MAXIMUM_CHUNK = 4_294_967_295
_LONGEST_HEADER = len(b"\n#4294967295\n")


class FramingError(ValueError):
    """The peer's bytes are no NETCONF framing, or a message is larger than allowed. The session is of no use after."""


class Framing:
    """Cuts a byte stream into messages.

    `receive` takes bytes as they come, `next_message` gives a message or None. `upgrade` switches to chunks between two
    messages; bytes that came already are read as chunks then.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0
        self._message = bytearray()
        self._chunk_left = 0
        self._in_message = False
        self._chunked = False

    @property
    def chunked(self) -> bool:
        """Whether `upgrade` was called."""
        return self._chunked

    def upgrade(self) -> None:
        """Both sides announced base:1.1 in their hello (RFC 6242 section 4.1)."""
        self._chunked = True
        self._searched = 0

    def frame(self, message: bytes) -> bytes:
        """The bytes to send for `message`."""
        if not self._chunked:
            if END_OF_MESSAGE in message:
                raise FramingError("a message holds the end-of-message mark")
            return message + END_OF_MESSAGE
        return b"\n#%d\n%b\n##\n" % (len(message), message)

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer. Raises FramingError when more is held back than one message may have."""
        self._buffer += data
        if len(self._buffer) > self._limit + _LONGEST_HEADER + len(data):
            raise FramingError(f"a message is larger than {self._limit} octets")

    def next_message(self) -> bytes | None:
        """The next whole message, without framing; None until more bytes came. Raises FramingError."""
        return self._next_chunked() if self._chunked else self._next_marked()

    def _next_marked(self) -> bytes | None:
        end = self._buffer.find(END_OF_MESSAGE, self._searched)
        if end < 0:
            if len(self._buffer) > self._limit:
                raise FramingError(f"a message is larger than {self._limit} octets")
            self._searched = max(0, len(self._buffer) - len(END_OF_MESSAGE) + 1)
            return None
        if end > self._limit:
            raise FramingError(f"a message is larger than {self._limit} octets")
        message = bytes(self._buffer[:end])
        del self._buffer[: end + len(END_OF_MESSAGE)]
        self._searched = 0
        return message

    def _next_chunked(self) -> bytes | None:
        while True:
            if self._chunk_left:
                taken = self._buffer[: self._chunk_left]
                if not taken:
                    return None
                self._message += taken
                del self._buffer[: len(taken)]
                self._chunk_left -= len(taken)
                continue
            size = self._header()
            if size is None:
                return None
            if size == 0:
                message = bytes(self._message)
                self._message.clear()
                self._in_message = False
                return message
            if len(self._message) + size > self._limit:
                raise FramingError(f"a message is larger than {self._limit} octets")
            self._chunk_left = size
            self._in_message = True

    def _header(self) -> int | None:
        """Size of the next chunk, 0 at the end of chunks, None until the header is whole (RFC 6242 section 4.2)."""
        head = bytes(self._buffer[:_LONGEST_HEADER])
        if not b"\n#".startswith(head[:2]):
            raise FramingError("a chunk does not begin with LF HASH")
        end = head.find(b"\n", 2)
        if end < 0:
            self._check_partial_header(head[2:])
            return None
        digits = head[2:end]
        del self._buffer[: end + 1]
        if digits == b"#":
            if not self._in_message:
                raise FramingError("a message has no chunk")
            return 0
        if not digits.isdigit() or digits.startswith(b"0") or int(digits) > MAXIMUM_CHUNK:
            raise FramingError("a chunk has no valid size")
        return int(digits)

    @staticmethod
    def _check_partial_header(digits: bytes) -> None:
        if len(digits) >= _LONGEST_HEADER - 2 or (digits and digits != b"#" and not digits.isdigit()):
            raise FramingError("a chunk has no valid size")
