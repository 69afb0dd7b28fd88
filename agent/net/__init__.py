"""Thin IO: sockets, multicast routing, netlink, tap devices."""
