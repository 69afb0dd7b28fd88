"""Events programs write for the agent."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any, Final

from agent.net.bpf.errors import BpfUnavailableError, failure
from agent.net.bpf.library import ffi, library
from agent.net.bpf.maps import BpfMap

_STOP: Final = -errno.ECANCELED
_logger = logging.getLogger(__name__)


class RingBuffer:
    """Reads a map of kind RINGBUF. Its descriptor is readable as long as there are events, for an event loop.

    Args:
        events: the map, which must stay open as long.
        callback: called by `drain` with the octets of each event.

    Raises:
        BpfError: the map is no ring buffer, or cannot be mapped into memory.
        BpfUnavailableError: the system lets us have no function that libbpf can call.
    """

    def __init__(self, events: BpfMap, callback: Callable[[bytes], None]) -> None:
        self._fd = events.fd
        self._deliver = callback
        self._left = 0
        self._taken = 0
        self._library = library()
        try:
            self._function = ffi.callback("int(void *, void *, size_t)", self._take, error=0)
        except MemoryError as error:
            raise BpfUnavailableError(
                "no executable memory for a function libbpf calls: allow execmem (SELinux), no MemoryDenyWriteExecute"
            ) from error
        self._handle: Any = self._library.ring_buffer__new(events.fd, self._function, ffi.NULL, ffi.NULL)
        if self._handle == ffi.NULL:
            raise failure(f"reading events of map {events.name}", ffi.errno)

    def fileno(self) -> int:
        """Descriptor to wait for; level-triggered, so that `drain` need not take everything."""
        return self._fd

    def drain(self, most: int = 256) -> int:
        """Hand over what is there without waiting, `most` events at most; how many there were.

        Raises:
            BpfError: the kernel refused.
        """
        if self._handle is None:
            return 0
        self._left, self._taken = most, 0
        code = self._library.ring_buffer__consume(self._handle)
        if code < 0 and code != _STOP:
            raise failure("reading events", code)
        return self._taken

    def close(self) -> None:
        """Unmap it; the map stays. Not from within the callback."""
        if self._handle is not None:
            self._library.ring_buffer__free(self._handle)
            self._handle = None

    def _take(self, _context: Any, data: Any, size: int) -> int:  # noqa: ANN401 - cffi has no types
        self._taken += 1
        self._left -= 1
        try:
            self._deliver(bytes(ffi.buffer(data, size)))
        except Exception:  # no exception passes through libbpf
            _logger.exception("an event of a program could not be handled")
        return _STOP if self._left <= 0 else 0
