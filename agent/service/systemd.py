"""What systemd is told (sd_notify(3)): ready, reloading, stopping, alive. Without systemd nothing happens."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends notifications to the socket of NOTIFY_SOCKET.

    Attributes:
        watchdog_interval: seconds between two `watchdog` calls, half of what the unit asks for; None without one.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address.startswith(("\0", "/")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self.watchdog_interval = self._watchdog_interval(environment)

    def ready(self, status: str = "running") -> None:
        """Started, or done with a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload began; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self) -> None:
        """The end began."""
        self._send("STOPPING=1", "STATUS=stopping")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        """Still alive."""
        if self.watchdog_interval is not None:
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            message = "\n".join(line.replace("\n", " ") for line in lines)
            with contextlib.suppress(OSError):  # nobody listens: not our worry
                self._socket.sendto(message.encode(), self._address)

    def _watchdog_interval(self, environment: Mapping[str, str]) -> float | None:
        microseconds = environment.get("WATCHDOG_USEC", "")
        process = environment.get("WATCHDOG_PID", str(os.getpid()))
        if self._socket is None or not microseconds.isdigit() or process != str(os.getpid()):
            return None
        return int(microseconds) / 2_000_000 or None
