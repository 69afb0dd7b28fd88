"""The gateway's objects in the kernel, as `agent.dataplane.fast.programs.Programs`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, cast

from agent.dataplane.fast.layout import MOST_CHANNELS, TRAFFIC, index_key, settings_value
from agent.dataplane.fast.programs import Events, Map
from agent.dataplane.fast.receiving import open_queues
from agent.dataplane.fast.receiving import receive_cores as cores_of
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE, PLAIN_SOURCE
from agent.net.bpf import BpfObject, MapKind, RingBuffer, create_map, live_frames, load
from agent.net.bpf.maps import possible_cpus

_DEVMAP_VALUE: Final = 8  # struct bpf_devmap_val
_MOST_RECEIVE_CPUS: Final = 128  # of the configuration
_COUNTERS_MEMORY: Final = 32 << 20
_FEWEST_SLOTS: Final = 16_384


def channel_slots(cpus: int) -> int:
    """Elements of the channels' counters: every processor that may ever be there has its own copy of all.

    Of 16 octets each that is 4 MiB for 131 072 slots (both families full) with 2 processors and 32 MiB with 16; from
    there on it stays 32 MiB, which is 32 768 slots with 64 processors and 16 384 with 128 and more. A channel beyond
    them is forwarded in userspace. All other maps take some 30 MiB, whatever the number of processors.

    Args:
        cpus: processors the kernel may ever have.
    """
    return min(2 * MOST_CHANNELS, max(_FEWEST_SLOTS, _COUNTERS_MEMORY // (TRAFFIC.size * cpus)))


class LoadedPrograms:
    """The gateway's programs, and the one that tries interfaces out.

    Args:
        tunnel_interface: index of the tunnel interface.
        receive_cores: processors to spread channels over, 0 for none; fewer are used where there are fewer.

    Raises:
        BpfUnavailableError: this host cannot run them; the message says why.
        OSError: the kernel refused to fill a map; nothing stays loaded.

    Attributes:
        gateway: the object.
        channel_slots: channels the programs can count, and so forward, at a time; see `channel_slots`.
    """

    def __init__(self, tunnel_interface: int, receive_cores: int) -> None:
        cpus = possible_cpus()
        self.channel_slots = channel_slots(cpus)
        self.gateway: BpfObject = load(
            "gateway", entries={"channel_counters": self.channel_slots, "receive_cpus": min(cpus, _MOST_RECEIVE_CPUS)}
        )
        with ExitStack() as opened:
            opened.callback(self.gateway.close)
            self._probe = load("probe")
            opened.callback(self._probe.close)
            cores = open_queues(self.gateway, cores_of(receive_cores))
            value = settings_value(
                tunnel_interface, cores, PLAIN_SOURCE, DONT_FRAGMENT_SOURCE, _secret_address(), _secret_address()
            )
            self.gateway.map("settings").update(index_key(0), value)
            opened.pop_all()

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
