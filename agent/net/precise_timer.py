"""A one-shot timer of microsecond precision for an event loop.

asyncio rounds its waits up to whole milliseconds, which is half of what a relay may add to a packet; a timer descriptor
(timerfd_create(2)) is exact.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

from cffi import FFI

_CLOCK_MONOTONIC: Final = 1
_TIMER_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE: Final = 1

_ffi: Final[Any] = FFI()
_ffi.cdef(
    """
    struct timespec { long tv_sec; long tv_nsec; };
    struct itimerspec { struct timespec it_interval; struct timespec it_value; };
    int timerfd_create(int clock, int flags);
    int timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *old);
    """
)


class PreciseTimer:
    """Calls `callback` once at a time of CLOCK_MONOTONIC, which is the clock of `loop.time()`.

    Raises:
        OSError: out of file descriptors.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._library: Any = _ffi.dlopen(None)
        self._loop = loop
        self._callback = callback
        self._value: Any = _ffi.new("struct itimerspec *")
        self._descriptor: int = self._library.timerfd_create(_CLOCK_MONOTONIC, _TIMER_FLAGS)
        if self._descriptor < 0:
            raise OSError(_ffi.errno, os.strerror(_ffi.errno))
        loop.add_reader(self._descriptor, self._expired)

    def set(self, deadline: float) -> None:
        """Expire at `deadline` (seconds); replaces an earlier deadline."""
        seconds = int(deadline)
        self._value.it_value.tv_sec = seconds
        # An all-zero value disarms the timer.
        self._value.it_value.tv_nsec = max(1, int((deadline - seconds) * 1e9))
        self._library.timerfd_settime(self._descriptor, _ABSOLUTE, self._value, _ffi.NULL)

    def close(self) -> None:
        """Disarm and give the descriptor back."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _expired(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return
        self._callback()
