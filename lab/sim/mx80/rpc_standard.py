"""The standard operations of RFC 6241, as far as they say the same as Junos's own."""

from __future__ import annotations

from typing import Final

from lxml import etree

from lab.sim.mx80 import rpc_configuration as own
from lab.sim.mx80.device import Handler, Mx80
from lab.sim.netconf_server import OK, NetconfSession, RpcFailed

_DATABASES: Final = {"candidate": "candidate", "running": "committed"}


def get_config(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """get-config with a subtree filter."""
    asked = etree.Element("get-configuration", database=_database(request, "source"))
    wanted = request.find("filter/configuration")
    if wanted is not None:
        asked.append(wanted)
    return b"<data>\n" + own.get_configuration(device, session, asked) + b"\n</data>"


def edit_config(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """edit-config of the candidate: merge, replace (of the whole) or none, and `operation` attributes."""
    if _database(request, "target") != "candidate":
        raise RpcFailed("only the candidate is edited", tag="operation-not-supported")
    operation = request.findtext("default-operation", "merge").strip()
    asked = etree.Element("load-configuration", action="override" if operation == "replace" else "replace")
    for tag in ("config/configuration", "config-text/configuration-text", "config/configuration-text"):
        if (found := request.find(tag)) is not None:
            asked.append(found)
    reply = own.load(device, session, asked)
    if b"<rpc-error>" in reply:
        return reply.replace(b"<load-configuration-results>", b"").replace(b"</load-configuration-results>", b"")
    return OK


def lock(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """Lock the candidate."""
    _database(request, "target")
    return own.lock(device, session, request)


def unlock(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """Unlock the candidate."""
    return own.unlock(device, session, request)


def validate(device: Mx80, session: NetconfSession, _request: etree._Element) -> bytes:
    """Validate: a commit check."""
    asked = etree.Element("commit-configuration")
    etree.SubElement(asked, "check")
    return own.commit(device, session, asked)


def commit(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """Commit; confirm-timeout is in seconds here."""
    asked = etree.Element("commit-configuration")
    if request.find("confirmed") is not None:
        etree.SubElement(asked, "confirmed")
        seconds = request.findtext("confirm-timeout", "600").strip()
        if not seconds.isdigit():
            raise RpcFailed("invalid numeric value", tag="invalid-value", info={"bad-element": seconds})
        etree.SubElement(asked, "confirm-timeout").text = str(max(1, -(-int(seconds) // 60)))
    return own.commit(device, session, asked)


def _database(request: etree._Element, role: str) -> str:
    holder = request.find(role)
    name = str(holder[0].tag) if holder is not None and len(holder) else ""
    if name not in _DATABASES:
        raise RpcFailed("no such database", tag="invalid-value", info={"bad-element": name or role})
    return _DATABASES[name]


HANDLERS: Final[dict[str, Handler]] = {
    "get-config": get_config,
    "edit-config": edit_config,
    "lock": lock,
    "unlock": unlock,
    "validate": validate,
    "commit": commit,
}
