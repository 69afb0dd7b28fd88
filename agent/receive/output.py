"""Where received payloads go: a UDP port, a file or pipe, or nowhere."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import threading
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import urlsplit

_QUEUE_BYTES: Final = 32 << 20
_CLOSE_TIMEOUT: Final = 5.0


class OutputError(Exception):
    """The output cannot be opened, or took no more; the message names it."""


class Output(Protocol):
    """Takes payloads without ever blocking."""

    dropped: int
    """Payloads the other side was too slow for, or that could not be sent."""

    def write(self, payload: bytes) -> None:
        """Take one payload."""

    def flush(self) -> None:
        """Pass on what was written since the last call.

        Raises:
            OutputError: nothing more can be written.
        """

    def close(self) -> None:
        """Write what is left, for five seconds at most."""


class NoOutput:
    """Measures only."""

    dropped = 0

    def write(self, payload: bytes) -> None:
        """Forget the payload."""

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class UdpOutput:
    """One datagram for each payload."""

    def __init__(self, host: str, port: int) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            raise OutputError(f"udp://{host}:{port}: {error}") from error
        self._address: tuple[object, ...] = address
        self._socket.setblocking(False)
        self.dropped = 0

    def write(self, payload: bytes) -> None:
        """Send the payload; when nobody listens yet, that is no reason to stop."""
        try:
            self._socket.sendto(payload, self._address)
        except OSError:
            self.dropped += 1

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class StreamOutput:
    """Payloads one after another into a file or pipe, written by a thread.

    A player that pauses leaves its pipe full; the tunnel has to be kept alive meanwhile, so the event loop never
    writes itself. Up to 32 MB wait, then whole payloads are dropped and counted.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.dropped = 0
        self._stream = stream
        self._name = name
        self._batch: list[bytes] = []
        self._waiting = 0
        self._written = 0
        self._failure: OSError | None = None
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="output", daemon=True)
        self._thread.start()

    def write(self, payload: bytes) -> None:
        """Queue the payload."""
        if self._waiting - self._written + len(payload) > _QUEUE_BYTES:
            self.dropped += 1
            return
        self._waiting += len(payload)
        self._batch.append(payload)

    def flush(self) -> None:
        """Hand the queued payloads to the thread.

        Raises:
            OutputError: an earlier write failed, as when the player has gone.
        """
        if self._failure is not None:
            raise OutputError(f"{self._name}: {self._failure.strerror or self._failure}") from self._failure
        if self._batch:
            self._queue.put(b"".join(self._batch))
            self._batch.clear()

    def close(self) -> None:
        """Let the thread finish; a reader that takes nothing is left behind after five seconds."""
        with contextlib.suppress(OutputError):
            self.flush()
        self._queue.put(None)
        self._thread.join(_CLOSE_TIMEOUT)

    def _write_all(self) -> None:
        try:
            with self._stream:
                while (chunk := self._queue.get()) is not None:
                    self._stream.write(chunk)
                    self._stream.flush()
                    self._written += len(chunk)
        except OSError as error:
            self._failure = error


def open_output(target: str | None) -> Output:
    """Output named on the command line.

    Args:
        target: `udp://HOST:PORT`, `-` for standard output, a file's path, or None to measure only.

    Raises:
        OutputError: it cannot be opened.
    """
    if target is None:
        return NoOutput()
    if target == "-":
        # A duplicate, so that what a vanished reader leaves unwritten does not trouble the interpreter's exit.
        return StreamOutput(os.fdopen(os.dup(sys.stdout.fileno()), "wb"), "standard output")
    if target.startswith("udp://"):
        return _open_udp(target)
    try:
        return StreamOutput(Path(target).open("wb"), target)
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error


def _open_udp(target: str) -> UdpOutput:
    try:
        parts = urlsplit(target)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise OutputError(f"{target}: {error}") from error
    if not host or not port:
        raise OutputError(f"{target}: expected udp://HOST:PORT")
    return UdpOutput(host, port)
