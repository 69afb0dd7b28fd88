"""Source ports of tunnels, kept across restarts.

A relay tells tunnels apart by the gateway's address and port, and the Linux kernel's relay keeps the first port of an
address for minutes: a gateway that comes back on another port gets no answer until that entry expires.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_LIMIT: Final = 4096
"""Tunnels remembered; discovered relays come and go."""


class PortStore:
    """Local UDP port by tunnel name, in one JSON file."""

    def __init__(self, path: Path) -> None:
        """Read the file; a missing or damaged one is an empty store."""
        self._path = path
        self._ports: dict[str, int] = {}
        try:
            stored = json.loads(path.read_text())
            self._ports = {
                str(name): port for name, port in stored.items() if isinstance(port, int) and 0 < port < 65536
            }
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError) as error:
            _log.warning("stored tunnel ports are not usable: %s", error)

    def get(self, tunnel: str) -> int:
        """Port used last time, 0 when there is none."""
        return self._ports.get(tunnel, 0)

    def put(self, tunnel: str, port: int) -> None:
        """Remember a port; a failure to write is logged, the tunnel works without."""
        if self._ports.get(tunnel) == port:
            return
        self._ports.pop(tunnel, None)
        self._ports[tunnel] = port
        while len(self._ports) > _LIMIT:
            del self._ports[next(iter(self._ports))]
        temporary = self._path.with_suffix(".new")
        try:
            with temporary.open("w") as file:
                json.dump(self._ports, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            _log.warning("tunnel port not stored: %s", error)
