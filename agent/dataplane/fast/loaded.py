"""The gateway's objects in the kernel, as `agent.dataplane.fast.programs.Programs`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, cast

from agent.dataplane.fast.layout import index_key, settings_value
from agent.dataplane.fast.programs import Events, Map
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE, PLAIN_SOURCE
from agent.net.bpf import BpfObject, MapKind, RingBuffer, create_map, live_frames, load

_DEVMAP_VALUE: Final = 8  # struct bpf_devmap_val


class LoadedPrograms:
    """The gateway's programs, and the one that tries interfaces out.

    Args:
        tunnel_interface: index of the tunnel interface.
        receive_cores: processors to spread channels over, 0 for none.

    Raises:
        BpfUnavailableError: this host cannot run them; the message says why.

    Attributes:
        gateway: the object.
    """

    def __init__(self, tunnel_interface: int, receive_cores: int) -> None:
        self.gateway: BpfObject = load("gateway")
        try:
            self._probe = load("probe")
        except BaseException:
            self.gateway.close()
            raise
        value = settings_value(
            tunnel_interface, receive_cores, PLAIN_SOURCE, DONT_FRAGMENT_SOURCE, _secret_address(), _secret_address()
        )
        self.gateway.map("settings").update(index_key(0), value)

    def map(self, name: str) -> Map:
        """One of the object's maps."""
        return cast(Map, self.gateway.map(name))

    def program(self, name: str) -> int:
        """Descriptor of a program."""
        return self.gateway.program(name)

    def make_outgoing(self, entries: int) -> Map:
        """A devmap for one set of outgoing interfaces."""
        return cast(Map, create_map(MapKind.DEVMAP, "outgoing", 4, _DEVMAP_VALUE, entries))

    def make_events(self, callback: Callable[[bytes], None]) -> Events:
        """Read the map `events`."""
        return cast(Events, RingBuffer(self.gateway.map("events"), callback))

    def send(self, frame: bytes, count: int) -> None:
        """Redirect copies of a frame to the interface it names; see `agent.dataplane.fast.probe`."""
        live_frames(self._probe.program("probe_interface"), frame, count, count)

    def close(self) -> None:
        """Unload."""
        self._probe.close()
        self.gateway.close()


def _secret_address() -> bytes:
    """A MAC address nobody on the link can guess: locally administered, of a single station."""
    address = bytearray(secrets.token_bytes(6))
    address[0] = address[0] & 0xFC | 0x02
    return bytes(address)
