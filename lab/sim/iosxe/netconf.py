"""NETCONF of the simulated IOS-XE: operational data to read, and configuration lines to send where the release has it.

The output of `config-ios-cli-rpc` on success was seen in a write-up; what it tells of a failure is synthetic, made of
the leaves its model has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape

from lxml import etree

from lab.sim.faults import FaultSwitch
from lab.sim.iosxe.configuration import Path
from lab.sim.iosxe.device import IosDevice
from lab.sim.iosxe.operational import NAMESPACE, REVISION, TREES, tree
from lab.sim.iosxe.subtree import wanted
from lab.sim.iosxe.words import Refusal
from lab.sim.netconf_server import BASE, BASE_1_0, BASE_1_1, OK, Disconnect, NetconfSession, RpcFailed, local
from lab.sim.wire_log import WireLog

CLI_RPC = NAMESPACE + "Cisco-IOS-XE-cli-rpc"
NATIVE = NAMESPACE + "Cisco-IOS-XE-native"
_CAPABILITIES = (
    BASE_1_0,
    BASE_1_1,
    "urn:ietf:params:netconf:capability:writable-running:1.0",
    "urn:ietf:params:netconf:capability:rollback-on-error:1.0",
    "urn:ietf:params:netconf:capability:validate:1.0",
    "urn:ietf:params:netconf:capability:validate:1.1",
    "urn:ietf:params:netconf:capability:xpath:1.0",
    "urn:ietf:params:netconf:capability:notification:1.0",
    "urn:ietf:params:netconf:capability:interleave:1.0",
    "urn:ietf:params:netconf:capability:with-defaults:1.0?basic-mode=explicit&also-supported=report-all-tagged",
    f"{NATIVE}?module=Cisco-IOS-XE-native&revision=2022-11-01",
)
_WRONG = re.compile(r"^\s*%\s*(.*)$", re.MULTILINE)


def capabilities(device: IosDevice) -> tuple[str, ...]:
    """URIs of the hello."""
    modules = list(TREES.values())
    uris = [f"{NAMESPACE}{module}?module={module}&revision={REVISION}" for module in modules]
    if device.profile.has_cli_rpc:
        uris.append(f"{CLI_RPC}?module=Cisco-IOS-XE-cli-rpc&revision=2022-07-01")
    return (*_CAPABILITIES, *uris)


class IosxeNetconf:
    """Answers the RPCs of one session.

    Args:
        device: the router.
        one_gateway: see `operational.tree`.
    """

    reply_namespaces: Mapping[str, str] = {}

    def __init__(self, device: IosDevice, *, one_gateway: bool = False) -> None:
        self._device = device
        self.faults: FaultSwitch = device.faults
        self.wire_log: WireLog = device.wire_log
        self._one_gateway = one_gateway
        self.netconf_capabilities = capabilities(device)

    def open_session(self, session: NetconfSession) -> int:  # noqa: ARG002
        """A number for it."""
        return self._device.next_session()

    def close_session(self, session: NetconfSession) -> None:
        """Nothing is kept for it."""

    async def answer(self, session: NetconfSession, request: etree._Element) -> bytes:
        """The inside of rpc-reply; raises RpcFailed or Disconnect."""
        name = local(request)
        if name == "get":
            return self._get(request)
        if name == "get-config":
            return self._get_config()
        if name == "close-session":
            session.end()
            return OK
        if name == "config-ios-cli-rpc" and self._device.profile.has_cli_rpc:
            return self._config_cli(session, request)
        raise RpcFailed(f"unknown element: {name}", tag="unknown-element", kind="protocol", info={"bad-element": name})

    def _get(self, request: etree._Element) -> bytes:
        selections = [part for one in request if local(one) == "filter" for part in one if isinstance(part.tag, str)]
        if any(one.get("type") == "xpath" for one in request if local(one) == "filter"):
            raise RpcFailed("the simulator has subtree filters only", tag="operation-not-supported")
        parts = []
        for selection in selections:
            container = local(selection)
            if etree.QName(selection).namespace not in {NAMESPACE + TREES.get(container, ""), BASE, None}:
                continue
            if container not in TREES:
                continue
            whole = tree(self._device, container, one_gateway=self._one_gateway)
            if whole and len(selection):
                left = wanted(etree.fromstring(whole), selection)
                whole = etree.tostring(left, encoding="unicode") if left is not None else ""
            parts.append(whole)
        return f"<data>{''.join(parts)}</data>".encode()

    def _get_config(self) -> bytes:
        version = ".".join(self._device.profile.version.split(".")[:2])
        hostname = self._device.running.hostname
        return (
            f'<data><native xmlns="{NATIVE}"><version>{version}</version>'
            f"<hostname>{hostname}</hostname></native></data>"
        ).encode()

    def _config_cli(self, session: NetconfSession, request: etree._Element) -> bytes:
        if not self._device.may_configure(session.user):
            raise RpcFailed("access denied", tag="access-denied", kind="application")
        if "lock-held" in self._device.faults:
            raise RpcFailed("the configuration database is locked", tag="in-use", kind="application")
        lines = next(((child.text or "") for child in request if local(child) == "config-clis"), None)
        if lines is None:
            raise RpcFailed("config-clis is missing", tag="missing-element", info={"bad-element": "config-clis"})
        patterns = [_pattern(child) for child in request if local(child) == "error-patterns"]
        failed = self._apply(lines, session.user, patterns)
        if "drop-after-commit" in self._device.faults:
            raise Disconnect
        return failed or _output(result="RPC request successful")

    def _apply(self, lines: str, user: str, patterns: list[tuple[str, re.Pattern[str]]]) -> bytes | None:
        """Obey the lines one after the other; what was done before a failure stays."""
        path: Path = ()
        for number, line in enumerate(lines.splitlines(), start=1):
            word = line.strip().lower()
            if not word or word.startswith("!"):
                continue
            if word in {"end", "exit"}:
                path = () if word == "end" else path[:-1]
                continue
            try:
                path = self._device.configure(line.strip(), path, user)
            except Refusal as refusal:
                text = refusal.text
                tag = next((tag for tag, expression in patterns if expression.search(text)), None)
                told = _WRONG.search(text)
                return _output(
                    result="RPC request failed",
                    lineno=str(number),
                    **{"error-code": "1", "error-string": told[1] if told else text.strip()},
                    **({"error-tag": tag} if tag else {}),
                )
        return None


def _pattern(element: etree._Element) -> tuple[str, re.Pattern[str]]:
    leaves = {local(child): (child.text or "") for child in element if isinstance(child.tag, str)}
    try:
        return leaves.get("error-tag", ""), re.compile(leaves.get("error-pattern", "(?!)"))
    except re.error as error:
        raise RpcFailed(f"error-pattern: {error}", tag="invalid-value", kind="application") from error


def _output(**leaves: str) -> bytes:
    return "".join(f'<{name} xmlns="{CLI_RPC}">{escape(text)}</{name}>' for name, text in leaves.items()).encode()
