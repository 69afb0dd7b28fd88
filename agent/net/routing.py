"""What the routing table says, asked in a way every platform knows."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from agent.protocol.channels import Address


def local_address_towards(destination: Address, interface: str | None = None) -> Address | None:
    """The local address the kernel's routing would use towards `destination`, or None when there is no route.

    Nothing is sent. Works on every platform when `interface` is None.

    Args:
        destination: a unicast address.
        interface: consider only routes out of this interface (Linux).
    """
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if interface is not None:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            probe.connect((str(destination), 9))
            return ip_address(probe.getsockname()[0].partition("%")[0])
    except OSError:
        return None
