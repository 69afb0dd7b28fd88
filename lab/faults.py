"""What can go wrong between a gateway and its relay, as a pure transformation of AMT messages."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Final

from agent.protocol.channels import Address
from agent.protocol.wire.amt import MAC_LENGTH, MembershipQuery, MessageType, RelayAdvertisement, decode
from agent.protocol.wire.errors import WireError

_LIMIT_FLAG: Final = 0x02
_MAC_TYPES: Final = frozenset((MessageType.MEMBERSHIP_QUERY, MessageType.MEMBERSHIP_UPDATE, MessageType.TEARDOWN))


@dataclass(slots=True)
class Faults:
    """The faults in force; the defaults are none.

    Attributes:
        loss: share of messages dropped, 0 to 1, both ways.
        duplicate: share of messages delivered twice.
        reorder: share of messages held back until the next one has passed.
        only: message types that loss, duplicate and reorder touch; empty means all.
        silence: nothing reaches the gateway.
        wrong_mac: Queries carry a response MAC the relay will not accept.
        stale_nonce: Queries carry the nonce of the Query before.
        limit: Queries carry the L flag.
        gateway_field: "keep", or "strip" the gateway address and the G flag from Queries.
        other_address: answers leave from another address.
        mute: groups whose packets never reach the gateway.
        key: number of the key that response MACs are made with; another number is a key rotation.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    only: tuple[str, ...] = ()
    silence: bool = False
    wrong_mac: bool = False
    stale_nonce: bool = False
    limit: bool = False
    gateway_field: str = "keep"
    other_address: bool = False
    mute: tuple[str, ...] = ()
    key: int = 0

    @classmethod
    def from_json(cls, values: dict[str, object]) -> Faults:
        """Faults by name.

        Raises:
            ValueError: a name that is no fault, or a message type that does not exist.
        """
        unknown = values.keys() - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        faults = cls(**values)  # type: ignore[arg-type]
        faults.only, faults.mute = tuple(faults.only), tuple(faults.mute)
        for name in faults.only:
            if name not in MessageType.__members__:
                raise ValueError(f"no such message type: {name}")
        return faults


class Disturbance:
    """Applies faults to one gateway's messages, either way.

    `towards_relay` and `towards_gateway` take one message and give those to deliver now.
    """

    def __init__(self, address: Address, seed: int = 0) -> None:
        """`address` is where the gateway is to find the relay."""
        self.faults = Faults()
        self._address = address
        self._random = random.Random(seed)
        self._held: dict[bool, bytes | None] = {True: None, False: None}
        self._last_nonce = 0

    def towards_relay(self, data: bytes) -> list[bytes]:
        """What of a gateway's message reaches the relay."""
        return self._deliver(self._translate_mac(data), to_gateway=False)

    def towards_gateway(self, data: bytes) -> list[bytes]:
        """What of a relay's message reaches the gateway."""
        if self.faults.silence or (self.faults.mute and _group(data) in self.faults.mute):
            return []
        return self._deliver(self._alter(self._translate_mac(data)), to_gateway=True)

    def _alter(self, data: bytes) -> bytes:
        if data[:1] == bytes((MessageType.MULTICAST_DATA,)):
            return data
        try:
            message = decode(data)
        except WireError:
            return data
        if isinstance(message, RelayAdvertisement):
            return RelayAdvertisement(message.nonce, self._address).encode()
        if isinstance(message, MembershipQuery):
            return self._alter_query(message)
        return data

    def _alter_query(self, query: MembershipQuery) -> bytes:
        faults = self.faults
        mac = bytes(byte ^ 0xFF for byte in query.response_mac) if faults.wrong_mac else query.response_mac
        nonce = self._last_nonce if faults.stale_nonce else query.nonce
        self._last_nonce = query.nonce
        gateway = None if faults.gateway_field == "strip" else query.gateway
        return MembershipQuery(mac, nonce, query.packet, query.limit or faults.limit, gateway).encode()

    def _translate_mac(self, data: bytes) -> bytes:
        """Mask the response MAC with the key in force, so that one from before a rotation comes out wrong."""
        if not self.faults.key or not data or data[0] not in _MAC_TYPES or len(data) < 2 + MAC_LENGTH:
            return data
        mask = hashlib.sha256(self.faults.key.to_bytes(8, "big")).digest()
        mac = bytes(one ^ other for one, other in zip(data[2 : 2 + MAC_LENGTH], mask, strict=False))
        return data[:2] + mac + data[2 + MAC_LENGTH :]

    def _deliver(self, data: bytes, *, to_gateway: bool) -> list[bytes]:
        faults = self.faults
        touched = not faults.only or (bool(data) and data[0] in {MessageType[name] for name in faults.only})
        if touched and self._random.random() < faults.loss:
            return []
        if touched and self._held[to_gateway] is None and self._random.random() < faults.reorder:
            self._held[to_gateway] = data
            return []
        copies = [data, data] if touched and self._random.random() < faults.duplicate else [data]
        held, self._held[to_gateway] = self._held[to_gateway], None
        return copies if held is None else [*copies, held]


def _group(data: bytes) -> str | None:
    """Where the packet in a Multicast Data message goes, None for any other message."""
    packet = data[2:]
    if data[:1] != bytes((MessageType.MULTICAST_DATA,)) or not packet:
        return None
    destination = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
    return str(ip_address(destination)) if len(destination) in {4, 16} else None
