"""UDP sockets of the gateway and the relay, with the socket options AMT needs.

All sockets are non-blocking. Nothing here reads a clock or knows an event loop.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from agent.net.socket_options import set_receive_buffer
from agent.protocol.channels import Address, Datagram, Endpoint

AMT_PORT: Final = 2268
"""Port relays listen on (RFC 7450 §7.2)."""

DEFAULT_RECEIVE_BUFFER: Final = 8 << 20

_IP_TOS: Final = 1
_IP_PKTINFO: Final = 8
_IP_MTU_DISCOVER: Final = 10
_IP_RECVERR: Final = 11
_IP_RECVTOS: Final = 13
_IP_FREEBIND: Final = 15
_IP_PMTUDISC_WANT: Final = 1
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_RECVERR: Final = 25
_IPV6_RECVPKTINFO: Final = 49
_IPV6_PKTINFO: Final = 50
_IPV6_RECVTCLASS: Final = 66
_IPV6_TCLASS: Final = 67
_IPV6_FREEBIND: Final = 78
_UDP_NO_CHECK6_RX: Final = 102

_LARGEST_DATAGRAM: Final = 65535
_ANCILLARY_SPACE: Final = 256
_ERROR_QUEUE_LIMIT: Final = 64
_ORIGIN_ICMP: Final = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6


@dataclass(frozen=True, slots=True)
class Received:
    """A UDP datagram as it came in.

    Attributes:
        data: UDP payload.
        source: who sent it.
        local: address it was sent to, which is where the answer has to come from; None when the kernel did not say.
        tos: TOS or traffic class byte, ECN in the low two bits (RFC 3168 §5).
    """

    data: bytes
    source: Endpoint
    local: Address | None
    tos: int


@dataclass(frozen=True, slots=True)
class IcmpHint:
    """An ICMP error about a datagram this socket sent: a hint and never proof, for anybody can forge it.

    Attributes:
        destination: where the datagram was going.
        reporter: who says so, or None when the kernel does not know.
        error: errno the kernel translates it to (ECONNREFUSED, EHOSTUNREACH, EMSGSIZE…).
        icmp_type: ICMP or ICMPv6 type.
        icmp_code: ICMP or ICMPv6 code.
        mtu: next-hop MTU of a "too big", else 0.
    """

    destination: Endpoint
    reporter: Address | None
    error: int
    icmp_type: int
    icmp_code: int
    mtu: int


def open_tunnel_socket(
    relay: Address,
    *,
    port: int = 0,
    interface: str | None = None,
    receive_buffer: int = DEFAULT_RECEIVE_BUFFER,
    error_queue: bool = False,
) -> socket.socket:
    """Socket of a gateway's tunnel, unconnected: advertisements and data may come from another address or port.

    Args:
        relay: the relay or discovery address; decides the family.
        port: local port, 0 for any. Relays tell tunnels apart by it, so keep it across restarts.
        interface: bind to this uplink (SO_BINDTODEVICE).
        receive_buffer: bytes, beyond the system's limit where CAP_NET_ADMIN allows.
        error_queue: collect ICMP errors for `read_error_queue`. The socket then polls readable until that queue has
            been drained, and the next send or receive reports the error as well: the reader must drain the queue
            whenever it wakes up and finds nothing, or it spins.

    Raises:
        OSError: port in use, no such interface, family not supported.
    """
    tunnel = _new_socket(relay, interface, receive_buffer)
    try:
        if error_queue:
            _set(tunnel, relay, (socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
        tunnel.bind(("::" if relay.version == 6 else "0.0.0.0", port))
    except BaseException:
        tunnel.close()
        raise
    return tunnel


def open_relay_socket(
    address: Address,
    *,
    port: int = AMT_PORT,
    interface: str | None = None,
    receive_buffer: int = DEFAULT_RECEIVE_BUFFER,
    error_queue: bool = False,
) -> socket.socket:
    """Socket of a relay on one of its addresses, the discovery address, or the unspecified address for all of them.

    The address need not exist yet: an anycast address may be configured later (IP_FREEBIND).

    Args:
        address: local address; `0.0.0.0` and `::` take every address of that family.
        port: local port.
        interface: bind to this interface (SO_BINDTODEVICE).
        receive_buffer: bytes, beyond the system's limit where CAP_NET_ADMIN allows.
        error_queue: see `open_tunnel_socket`.

    Raises:
        OSError: port in use, no such interface, family not supported.
    """
    relay = _new_socket(address, interface, receive_buffer)
    try:
        _set(relay, address, (socket.IPPROTO_IP, _IP_FREEBIND), (socket.IPPROTO_IPV6, _IPV6_FREEBIND))
        _set(relay, address, (socket.IPPROTO_IP, _IP_PKTINFO), (socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO))
        if error_queue:
            _set(relay, address, (socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
        relay.bind((str(address), port))
    except BaseException:
        relay.close()
        raise
    return relay


def receive(udp: socket.socket) -> Received | None:
    """The next datagram, or None when there is none.

    Raises:
        OSError: the socket reports an error (an ICMP error, with the error queue on); later datagrams are not lost.
    """
    try:
        data, ancillary, _, sender = udp.recvmsg(_LARGEST_DATAGRAM, _ANCILLARY_SPACE)
    except BlockingIOError:
        return None
    local: Address | None = None
    tos = 0
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            local = IPv4Address(value[8:12])
        elif level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            local = IPv6Address(value[:16])
        elif (level, kind) in {(socket.IPPROTO_IP, _IP_TOS), (socket.IPPROTO_IPV6, _IPV6_TCLASS)}:
            tos = value[0] if len(value) == 1 else int(struct.unpack("i", value)[0])
    return Received(data, _endpoint(sender), local, tos)


def send(udp: socket.socket, datagram: Datagram) -> OSError | None:
    """Send a datagram from `datagram.source` where it is given.

    An error an earlier datagram met (see `error_queue`) is passed over: it says nothing about this one.

    Returns:
        None, or why it was not sent; control messages are repeated by their machines, so nothing is queued.
    """
    destination = (str(datagram.destination.address), datagram.destination.port)
    ancillary = [] if datagram.source is None else [_packet_information(datagram.source)]
    failure: OSError | None = None
    for _ in range(2):
        try:
            udp.sendmsg([datagram.data], ancillary, 0, destination)
        except OSError as error:
            failure = error
        else:
            return None
    return failure


def read_error_queue(udp: socket.socket) -> list[IcmpHint]:
    """Drain the ICMP errors collected by a socket opened with `error_queue`, at most 64 of them."""
    hints: list[IcmpHint] = []
    for _ in range(_ERROR_QUEUE_LIMIT):
        try:
            _, ancillary, _, destination = udp.recvmsg(0, _ANCILLARY_SPACE, socket.MSG_ERRQUEUE)
        except OSError:
            break
        for level, kind, value in ancillary:
            if (level, kind) in {(socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)}:
                hint = _hint(value, _endpoint(destination))
                if hint is not None:
                    hints.append(hint)
    return hints


def _hint(extended_error: bytes, destination: Endpoint) -> IcmpHint | None:
    """From struct sock_extended_err followed by the offender's socket address."""
    number, origin, icmp_type, icmp_code, mtu = struct.unpack_from("=IBBBxI", extended_error)
    if origin not in _ORIGIN_ICMP:
        return None
    offender = extended_error[16:]
    reporter: Address | None = None
    if len(offender) >= 8:
        family = struct.unpack_from("=H", offender)[0]
        if family == socket.AF_INET:
            reporter = IPv4Address(offender[4:8])
        elif family == socket.AF_INET6 and len(offender) >= 24:
            reporter = IPv6Address(offender[8:24])
    return IcmpHint(destination, reporter, number, icmp_type, icmp_code, mtu if number == errno.EMSGSIZE else 0)


def _new_socket(address: Address, interface: str | None, receive_buffer: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if address.version == 6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            udp.setsockopt(socket.IPPROTO_UDP, _UDP_NO_CHECK6_RX, 1)  # RFC 6935; RFC 7450 §4.2.2.6 allows zero on data
        _set(udp, address, (socket.IPPROTO_IP, _IP_RECVTOS), (socket.IPPROTO_IPV6, _IPV6_RECVTCLASS))
        _set(
            udp,
            address,
            (socket.IPPROTO_IP, _IP_MTU_DISCOVER),
            (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER),
            _IP_PMTUDISC_WANT,
        )
        if interface is not None:
            bind_to_interface(udp, interface)
        set_receive_buffer(udp, receive_buffer)
    except BaseException:
        udp.close()
        raise
    return udp


def bind_to_interface(udp: socket.socket, interface: str) -> None:
    """Send and receive through `interface` only (SO_BINDTODEVICE); binds anew where it was bound before.

    Raises:
        OSError: there is no such interface, or CAP_NET_RAW is missing.
    """
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())


def _set(udp: socket.socket, address: Address, ipv4: tuple[int, int], ipv6: tuple[int, int], value: int = 1) -> None:
    udp.setsockopt(*(ipv6 if address.version == 6 else ipv4), value)


def _packet_information(source: Address) -> tuple[int, int, bytes]:
    """Ancillary data that makes a datagram leave from `source`: struct in_pktinfo or in6_pktinfo, any interface."""
    if source.version == 4:
        return socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=i4s4x", 0, source.packed)
    return socket.IPPROTO_IPV6, _IPV6_PKTINFO, source.packed + bytes(4)


def _endpoint(address: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    return Endpoint(ip_address(address[0].partition("%")[0]), address[1])
