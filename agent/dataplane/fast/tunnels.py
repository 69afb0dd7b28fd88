"""The tunnels in the kernel's maps, and what came through them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.dataplane.engine import Traffic, TunnelSocket
from agent.dataplane.fast.layout import Plane, tunnel_key, tunnel_value
from agent.dataplane.fast.programs import Programs
from agent.dataplane.fast.slots import NoRoomError, Slots
from agent.dataplane.fast.uplinks import Uplinks
from agent.protocol.channels import Endpoint


@dataclass(slots=True)
class _Known:
    """A tunnel.

    Attributes:
        slot: its counters, None when there is none left.
        local: what it is in the map by, None while it is not.
        value: its value there.
        reason: why it is not in the map.
    """

    settings: TunnelSocket
    slot: int | None = None
    local: Endpoint | None = None
    value: bytes = b""
    reason: str = ""


class FastTunnels:
    """Keeps the maps `tunnels4` and `tunnels6`; data of a tunnel that is not there goes to its socket.

    Args:
        programs: the loaded object.
        uplinks: where tunnels come in.
        slots: their counters.
    """

    def __init__(self, programs: Programs, uplinks: Uplinks, slots: Slots) -> None:
        self._maps = {4: programs.map("tunnels4"), 6: programs.map("tunnels6")}
        self._uplinks = uplinks
        self._slots = slots
        self._tunnels: dict[str, _Known] = {}
        self._owners: dict[Endpoint, str] = {}
        self._barred = ""
        self._removed: dict[str, int] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._tunnels))

    def add(self, settings: TunnelSocket) -> None:
        """A tunnel exists, or has another socket or relay; it goes on counting.

        One that was removed a moment ago gets its number back: channels' entries may still name it.
        """
        known = self._tunnels.get(settings.name)
        if known is None:
            known = self._tunnels[settings.name] = _Known(settings, self._removed.pop(settings.name, None))
            if known.slot is not None:
                self._slots.restart(known.slot)
        known.settings = settings
        if known.slot is None:
            try:
                known.slot = self._slots.allocate()
            except NoRoomError as error:
                known.reason = str(error)
        self.refresh(settings.name)

    def refresh(self, name: str) -> None:
        """Our address, or the uplink, is another one."""
        known = self._tunnels.get(name)
        if known is None or known.slot is None:
            return
        local = None if self._barred else self._uplinks.local(name)
        relay = known.settings.relay
        if local is not None and local.address.version != relay.address.version:
            local = None
        if local is None:
            self._withdraw(known)
            known.reason = self._barred or f"it is not known where tunnel {name} comes in"
            return
        strict = known.settings.strict_port
        station = self._uplinks.station(name)
        value = tunnel_value(relay, known.slot, strict_port=strict, station=station)
        if (local, value) == (known.local, known.value):
            return
        try:
            self._maps[local.address.version].update(tunnel_key(local), value)
        except OSError as error:
            self._withdraw(known)
            known.reason = f"tunnel {name} is not in the kernel's map: {error.strerror or error}"
            return
        self._owners[local] = name
        if known.local != local:
            self._withdraw(known)
        known.local, known.value, known.reason = local, value, ""

    def remove(self, name: str) -> None:
        """Leave a tunnel's data to its socket from now on; `release` gives its number free."""
        known = self._tunnels.pop(name, None)
        if known is None:
            return
        self._withdraw(known)
        if known.slot is not None:
            self._removed[name] = known.slot

    def release(self) -> None:
        """No channel names a tunnel any more that was removed."""
        while self._removed:
            _, slot = self._removed.popitem()
            self._slots.retire(slot, _ignore_count)

    def bar(self, reason: str) -> None:
        """Leave everything to the sockets, or no longer with an empty reason: the maps cannot say what is right."""
        if reason != self._barred:
            self._barred = reason
            for name in self._tunnels:
                self.refresh(name)

    def slot(self, name: str) -> int:
        """Number of a tunnel in the counters; it has one when `reason` is empty."""
        slot = self._tunnels[name].slot
        assert slot is not None
        return slot

    def reason(self, name: str) -> str:
        """Why the programs do not know a tunnel; empty when they do."""
        known = self._tunnels.get(name)
        return f"there is no tunnel {name}" if known is None else known.reason

    def planes(self, name: str) -> frozenset[Plane]:
        """Planes whose programs see a tunnel's data."""
        return self._uplinks.planes(name)

    def plane_reason(self, name: str, plane: Plane) -> str:
        """Why a plane's program does not."""
        return self._uplinks.reason(name, plane)

    def traffic(self) -> dict[str, Traffic]:
        """What the programs forwarded of each tunnel."""
        packets, octets = self._slots.read_all()
        slots = {name: known.slot for name, known in self._tunnels.items() if known.slot is not None}
        return {name: Traffic(packets[slot], octets[slot]) for name, slot in slots.items()}

    def forwarded(self) -> Traffic:
        """What the programs forwarded of all tunnels there ever were."""
        return self._slots.total()

    def close(self) -> None:
        """Leave everything to the sockets."""
        for name in tuple(self._tunnels):
            self.remove(name)

    def _withdraw(self, known: _Known) -> None:
        if known.local is None:
            return
        if self._owners.get(known.local) == known.settings.name:
            del self._owners[known.local]
            self._delete(known.local)
        known.local, known.value = None, b""

    def _delete(self, local: Endpoint) -> None:
        try:
            self._maps[local.address.version].delete(tunnel_key(local))
        except OSError:  # a hash map lets go of what it has
            return


def _ignore_count(_counted: Traffic) -> None:
    """The sum over all slots has it already."""
