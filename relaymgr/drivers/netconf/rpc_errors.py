"""rpc-error (RFC 6241 section 4.3) as one exception."""

from __future__ import annotations

from lxml import etree

from relaymgr.drivers.errors import ConfigurationRefused
from relaymgr.drivers.netconf.documents import child_text, descendants

_LOCK_TAGS = frozenset({"lock-denied", "in-use"})


class RpcError(ConfigurationRefused):
    """The device understood an RPC and refused it. `path` is its error-path."""

    def __init__(
        self,
        device: str,
        message: str,
        *,
        tag: str | None,
        path: str | None,
        bad_element: str | None,
        holder: str | None,
    ) -> None:
        super().__init__(device, message, path)
        self.tag = tag
        """error-tag, `lock-denied` for one."""
        self.bad_element = bad_element
        self.holder = holder
        """session-id of who holds the lock, where told."""

    @property
    def is_lock(self) -> bool:
        """Somebody else holds what was asked for."""
        return self.tag in _LOCK_TAGS


def rpc_error(device: str, reply: etree._Element) -> RpcError | None:
    """The first error of `reply`; None where it has none, or warnings alone."""
    for element in descendants(reply, "rpc-error"):
        if (child_text(element, "error-severity") or "error") == "warning":
            continue
        message = child_text(element, "error-message") or child_text(element, "error-tag") or "refused without a word"
        return RpcError(
            device,
            " ".join(message.split()),
            tag=child_text(element, "error-tag"),
            path=child_text(element, "error-path"),
            bad_element=child_text(element, "error-info", "bad-element"),
            holder=child_text(element, "error-info", "session-id"),
        )
    return None
