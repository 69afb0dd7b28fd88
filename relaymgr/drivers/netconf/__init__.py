"""A small NETCONF client on asyncssh (RFC 6241, RFC 6242): no threads, no polling, everything bounded."""

from __future__ import annotations

from relaymgr.drivers.netconf.documents import MalformedDocument, child_text, children, find, local_name, parse
from relaymgr.drivers.netconf.framing import Framing, FramingError
from relaymgr.drivers.netconf.rpc_errors import RpcError
from relaymgr.drivers.netconf.session import NetconfSession

__all__ = [
    "Framing",
    "FramingError",
    "MalformedDocument",
    "NetconfSession",
    "RpcError",
    "child_text",
    "children",
    "find",
    "local_name",
    "parse",
]
