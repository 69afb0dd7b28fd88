"""Whether the kernel joins datagrams on an uplink that it forwards (`rx-udp-gro-forwarding`)."""

from __future__ import annotations

import logging
import socket
from typing import Final

from agent.dataplane.fast.borrowed import BorrowedSettings
from agent.net.ethtool import Ethtool

_log = logging.getLogger(__name__)

_JOINING: Final = "rx-udp-gro-forwarding"


class Joining:
    """Changes the setting where a plane needs it, and puts it back as it was found.

    Args:
        ethtool: whom to ask.
        borrowed: which interfaces have another setting than they were found with; those of an earlier life, which was
            killed, get theirs back at once.
    """

    def __init__(self, ethtool: Ethtool, borrowed: BorrowedSettings) -> None:
        self._ethtool = ethtool
        self._borrowed = borrowed
        for index in borrowed:
            self.leave_as_found(index)

    def set(self, name: str, index: int, *, wanted: bool) -> None:
        """Have the kernel join what comes in on an interface, or not."""
        try:
            before = self._ethtool.feature(name, _JOINING)
            if before is not None and before is not wanted:
                self._borrowed.borrow(index, found=before)
                self._ethtool.set_feature(name, _JOINING, enabled=wanted)
        except OSError as error:
            _log.info("%s cannot be set interface=%s: %s", _JOINING, name, error.strerror)

    def leave_as_found(self, index: int) -> None:
        """Undo what was changed."""
        found = self._borrowed.found(index)
        if found is None:
            return
        try:
            self._ethtool.set_feature(socket.if_indextoname(index), _JOINING, enabled=found)
        except OSError as error:  # its interface is gone
            _log.debug("%s not restored interface=%d: %s", _JOINING, index, error)
        self._borrowed.give_back(index)
