"""The programs on one interface that tunnels come in on."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agent.dataplane.fast.layout import ANY_STATION, Plane, index_key, port_value
from agent.net.bpf import BpfObject, Link, attach_tc, attach_xdp
from agent.net.interfaces import Interface

_log = logging.getLogger(__name__)

XDP_PROGRAM: Final = "gateway_xdp"
TC_PROGRAM: Final = "gateway_tc"
FAST_PLANES: Final = frozenset((Plane.XDP, Plane.XDP_MFC, Plane.TC))
UNWANTED: Final = "not to be used"
_ABSENT: Final = "the uplink does not exist"
_NO_NATIVE: Final = {
    "802.1Q VLAN Support": "a VLAN device",
    "bridge": "a bridge",
    "macvlan": "a macvlan device",
    "ipvlan": "an ipvlan device",
    "dummy": "a dummy device",
}
"""What has no native XDP for its kind, by driver."""


class UplinkPrograms:
    """What is attached to an uplink, and why not more.

    Args:
        name: of the interface.
        loaded: the gateway's programs.
        driver: tells the driver of an interface by its name; raises OSError when there is none.

    Attributes:
        index: the interface the programs were attached to, 0 while there is none.
        station: its MAC address, as the programs know it.
        xdp: the program in the driver.
        tc: the program behind it.
    """

    def __init__(self, name: str, loaded: BpfObject, driver: Callable[[str], str]) -> None:
        self.name = name
        self.index = 0
        self.station = ANY_STATION
        self.xdp: Link | None = None
        self.tc: Link | None = None
        self._loaded = loaded
        self._driver = driver
        self._no_xdp = self._no_tc = _ABSENT

    @property
    def planes(self) -> frozenset[Plane]:
        """Planes whose programs see what comes in."""
        needed = {Plane.XDP: (self.xdp,), Plane.TC: (self.tc,), Plane.XDP_MFC: (self.xdp, self.tc)}
        return frozenset(plane for plane, programs in needed.items() if None not in programs)

    @property
    def hands_to_nobody(self) -> bool:
        """Whether the driver's program would strip packets for multicast routing that nobody takes behind it."""
        return self.xdp is not None and self.tc is None

    def explain(self, plane: Plane, wished: frozenset[Plane]) -> str:
        """Why a plane's program does not see what comes in."""
        if plane not in wished:
            return UNWANTED
        if plane is Plane.TC:
            return self._no_tc
        return self._no_xdp if plane is Plane.XDP else self._no_tc or self._no_xdp

    def attach(self, interface: Interface, wished: frozenset[Plane]) -> None:
        """Attach what is wished for and was not attached yet, as far as the interface takes it."""
        if self.index != interface.index:
            self.detach()
            self.index = interface.index
        if len(interface.mac) != len(ANY_STATION):
            self._no_xdp = self._no_tc = f"{self.name} has no Ethernet header"
            return
        if wished & {Plane.TC, Plane.XDP_MFC} and self.tc is None:
            self.tc = self._attach_tc()
        if self._wants_xdp(wished) and self.xdp is None:
            self.xdp = self._attach_xdp(interface)
        self._know(interface.mac)

    def detach_unwished(self, wished: frozenset[Plane]) -> None:
        """Take programs away that nobody wishes for; the one in the driver first, which hands on to the other."""
        if not self._wants_xdp(wished):
            self._close(self.xdp)
            self.xdp = None
        if not wished & {Plane.TC, Plane.XDP_MFC}:
            self._close(self.tc)
            self.tc = None

    def detach(self) -> None:
        """Take all programs away; the interface may be gone."""
        for link in (self.xdp, self.tc):
            self._close(link)
        self.xdp = self.tc = None
        if self.index:
            with suppress(OSError):  # it never was there
                self._loaded.map("stations").delete(index_key(self.index))
        self.index, self.station = 0, ANY_STATION
        self._no_xdp = self._no_tc = _ABSENT

    def _wants_xdp(self, wished: frozenset[Plane]) -> bool:
        """For multicast routing it is of use only where the program behind the driver takes what it stripped."""
        return Plane.XDP in wished or (Plane.XDP_MFC in wished and self.tc is not None)

    def _know(self, station: bytes) -> None:
        """Tell the programs whose frames are ours on this interface."""
        if station == self.station:
            return
        self.station = station
        try:
            self._loaded.map("stations").update(index_key(self.index), port_value(station))
        except OSError as error:
            _log.warning("station not known to the programs interface=%s: %s", self.name, error.strerror)

    def _attach_xdp(self, interface: Interface) -> Link | None:
        try:
            link = attach_xdp(self._loaded.program(XDP_PROGRAM), interface.index)
        except OSError as error:
            self._no_xdp = self._told(self._no_xdp, self._why_no_xdp(interface, error))
            return None
        self._no_xdp = ""
        return link

    def _attach_tc(self) -> Link | None:
        try:
            link = attach_tc(self._loaded, TC_PROGRAM, self.index)
        except OSError as error:
            reason = f"no tc program can be attached to {self.name}: {error.strerror}"
            self._no_tc = self._told(self._no_tc, reason)
            return None
        self._no_tc = ""
        return link

    def _told(self, before: str, reason: str) -> str:
        if before != reason:
            _log.info("program not attached interface=%s: %s", self.name, reason)
        return reason

    def _why_no_xdp(self, interface: Interface, error: OSError) -> str:
        name = self.name
        if error.errno == errno.ERANGE:
            return f"an MTU of {interface.mtu} is too large for the driver of {name} with XDP; lower it"
        if error.errno in {errno.EBUSY, errno.EEXIST}:
            return f"another XDP program is attached to {name}"
        if error.errno in {errno.EOPNOTSUPP, errno.EINVAL}:
            with suppress(OSError):
                if (driver := self._driver(name)) in _NO_NATIVE:
                    return f"{name} is {_NO_NATIVE[driver]}, which has no native XDP"
            return f"the driver of {name} has no native XDP"
        return f"no XDP program can be attached to {name}: {error.strerror}"

    def _close(self, link: Link | None) -> None:
        if link is None:
            return
        try:
            link.close()
        except OSError as error:  # its interface is gone, and the program with it
            _log.debug("program not detached interface=%s: %s", self.name, error)
