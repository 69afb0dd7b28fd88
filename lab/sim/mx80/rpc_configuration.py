"""The configuration RPCs of Junos: load, compare, check, commit, rollback, lock and commit history."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from lab.sim.mx80.compare import compare
from lab.sim.mx80.device import Handler, Mx80, load_commands, local_time
from lab.sim.mx80.merge import Loaded, LoadProblem, clean_copy, merge
from lab.sim.mx80.render import as_set, as_text
from lab.sim.mx80.schema import root
from lab.sim.mx80.selection import UnknownStatement, select
from lab.sim.mx80.statements import parse_text
from lab.sim.netconf_server import OK, Disconnect, NetconfSession, RpcFailed

XNM: Final = "http://xml.juniper.net/xnm/1.1/xnm"
_DEFAULT_MINUTES: Final = 10
_OUTSIDER: Final = "noc terminal p0 (pid 4321)"


def failure(problems: Sequence[LoadProblem]) -> RpcFailed:
    """One exception for all problems."""
    made = [
        RpcFailed(
            problem.message,
            severity=problem.severity,
            path=problem.path,
            info={"bad-element": problem.bad_element} if problem.bad_element else None,
        )
        for problem in problems
    ]
    made[0].also = tuple(made[1:])
    return made[0]


def require_permission(device: Mx80, session: NetconfSession) -> None:
    """Refuse who may only look.

    Raises:
        RpcFailed: permission denied.
    """
    if not device.may_change(session):
        raise RpcFailed("permission denied", tag="access-denied", kind="application")


def require_unlocked(device: Mx80, session: NetconfSession) -> None:
    """Refuse who has not the lock while somebody else has.

    Raises:
        RpcFailed: names the holder.
    """
    holder = device.lock_holder
    if "lock-held" in device.faults:
        who, number = _OUTSIDER, 0
    elif holder is not None and holder is not session:
        who, number = f"{holder.user} terminal  (pid {holder.id})", holder.id
    else:
        return
    since = local_time(device.locked_at or time.time())
    message = f"configuration database locked by:\n  {who} on since {since}\n      exclusive [edit]"
    raise RpcFailed(message, tag="lock-denied", info={"session-id": str(number)})


def lock(device: Mx80, session: NetconfSession, _request: etree._Element) -> bytes:
    """lock-configuration."""
    require_permission(device, session)
    require_unlocked(device, session)
    if device.candidate_differs:
        raise RpcFailed("configuration database modified", tag="lock-denied", info={"session-id": "0"})
    device.lock(session)
    return OK


def unlock(device: Mx80, session: NetconfSession, _request: etree._Element) -> bytes:
    """unlock-configuration: what was not committed is lost."""
    require_permission(device, session)
    if device.lock_holder is not session:
        raise RpcFailed("unlock failed: configuration database is not locked by this session")
    device.unlock(session)
    return OK


def load(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """load-configuration: text, set, xml; rollback."""
    require_permission(device, session)
    require_unlocked(device, session)
    if request.get("rollback") is not None:
        device.rollback(_number(request.get("rollback")))
        return b"<load-configuration-results>\n<ok/>\n</load-configuration-results>"
    tree = copy.deepcopy(device.candidate)
    loaded = _load(tree, request)
    device.replace_candidate(tree)
    if loaded.problems:
        errors = failure(loaded.problems).xml().decode()
        count = len(loaded.errors)
        counted = f"<load-error-count>{count}</load-error-count>\n" if count else "<ok/>\n"
        return f"<load-configuration-results>\n{errors}\n{counted}</load-configuration-results>".encode()
    return b"<load-configuration-results>\n<ok/>\n</load-configuration-results>"


def _load(tree: etree._Element, request: etree._Element) -> Loaded:
    action = request.get("action", "merge")
    as_commands = request.find("configuration-set")
    if as_commands is not None or action == "set":
        return load_commands(tree, _all_text(as_commands if as_commands is not None else request))
    as_braces = request.find("configuration-text")
    as_xml = request.find("configuration")
    problems: list[LoadProblem] = []
    if as_braces is not None:
        delta, problems = parse_text(_all_text(as_braces), root())
    elif as_xml is not None and request.get("format", "xml") == "xml":
        delta = as_xml
    elif as_xml is not None:
        delta, problems = parse_text(_all_text(as_xml), root())
    else:
        raise RpcFailed("syntax error", info={"bad-element": request[0].tag if len(request) else "load-configuration"})
    if action in {"override", "update"}:
        for child in list(tree):
            tree.remove(child)
    elif action not in {"merge", "replace"}:
        raise RpcFailed("syntax error", info={"bad-element": action})
    loaded = merge(tree, delta, root(), replacing=action == "replace")
    return Loaded([*problems, *loaded.problems])


def get_configuration(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-configuration: candidate or committed, filtered, as xml, text or set; compare with a rollback."""
    if request.get("compare") == "rollback":
        old = device.earlier(_number(request.get("rollback", "0")))
        changes = escape(compare(old, device.candidate, root()))
        return (
            "<configuration-information>\n<configuration-output>\n"
            f"{changes}</configuration-output>\n</configuration-information>"
        ).encode()
    from_committed = request.get("database") == "committed"
    tree = device.committed if from_committed else device.candidate
    wanted = request.find("configuration")
    if wanted is not None and len(wanted):
        try:
            tree = select(tree, wanted, root())
        except UnknownStatement as unknown:
            raise failure([unknown.problem]) from unknown
    return _printed(device, tree, request.get("format", "xml"), marked_committed=from_committed)


def _printed(device: Mx80, tree: etree._Element, style: str, *, marked_committed: bool) -> bytes:
    commit = device.history.commits[0]
    kind = "commit" if marked_committed or not device.candidate_differs else "changed"
    at = commit.at if kind == "commit" else time.time()
    marks = f'xmlns="{XNM}" junos:{kind}-seconds="{int(at)}" junos:{kind}-localtime="{local_time(at)}"'
    if kind == "commit":
        marks += f" junos:commit-user={quoteattr(commit.user)}"
    if style == "text":
        return f"<configuration-text {marks}>\n{escape(as_text(tree, root()))}</configuration-text>".encode()
    if style == "set":
        return f"<configuration-set>\n{escape(as_set(tree, root()))}</configuration-set>".encode()
    if style != "xml":
        raise RpcFailed("syntax error", info={"bad-element": style})
    shown = clean_copy(tree)
    etree.indent(shown, "    ")
    inner = "".join(etree.tostring(child, encoding="unicode") for child in shown)
    return f"<configuration {marks}>\n{inner}</configuration>".encode()


def commit(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """commit-configuration: check, confirmed, confirm-timeout (minutes), log."""
    require_permission(device, session)
    require_unlocked(device, session)
    if "commit-refused" in device.faults:
        raise RpcFailed("configuration check-out failed", path="[edit]", info={"bad-element": "commit"})
    if request.findtext("at-time", "0").strip() not in {"0", "now"}:
        raise RpcFailed("commit at a later time is not simulated", info={"bad-element": "at-time"})
    if request.find("check") is not None:
        problems = device.check()
        if problems:
            raise failure([*problems, LoadProblem("", "configuration check-out failed")])
        return OK
    minutes = None
    if request.find("confirmed") is not None:
        minutes = _minutes(request.findtext("confirm-timeout", str(_DEFAULT_MINUTES)))
    problems = device.commit(session.user, "netconf", request.findtext("log", "").strip(), minutes)
    if problems:
        raise failure([*problems, LoadProblem("", "configuration check-out failed")])
    if "drop-after-commit" in device.faults:
        raise Disconnect
    return OK


def discard(device: Mx80, session: NetconfSession, _request: etree._Element) -> bytes:
    """discard-changes."""
    require_permission(device, session)
    require_unlocked(device, session)
    device.discard()
    return OK


def commit_information(device: Mx80, _session: NetconfSession, _request: etree._Element) -> bytes:
    """get-commit-information. What stands in `comment` is a synthetic guess."""
    entries = []
    for number, one in enumerate(device.history.commits):
        comment = f"<comment>{escape(one.comment)}</comment>\n" if one.comment else ""
        log = f"<log>{escape(one.log)}</log>\n" if one.log else ""
        entries.append(
            f"<commit-history>\n<sequence-number>{number}</sequence-number>\n<user>{escape(one.user)}</user>\n"
            f"<client>{one.client}</client>\n"
            f'<date-time junos:seconds="{int(one.at)}">{local_time(one.at)}</date-time>\n{comment}{log}'
            "</commit-history>\n"
        )
    return f"<commit-information>\n{''.join(entries)}</commit-information>".encode()


def rollback_information(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-rollback-information: rollback, compare, format."""
    number = _number(request.findtext("rollback", "0"))
    tree = device.earlier(number)
    against = request.findtext("compare")
    if against is not None:
        text = escape(compare(device.earlier(_number(against)), tree, root()))
        inner = f"<configuration-output>\n{text}</configuration-output>"
    elif request.findtext("format") in {None, "text"}:
        inner = f"<configuration-text>\n{escape(as_text(tree, root()))}</configuration-text>"
    else:
        inner = f'<configuration xmlns="{XNM}">{"".join(etree.tostring(c, encoding="unicode") for c in tree)}'
        inner += "</configuration>"
    return f"<rollback-information>\n<ok/>\n{inner}\n</rollback-information>".encode()


def close_session(_device: Mx80, session: NetconfSession, _request: etree._Element) -> bytes:
    """close-session, request-end-session."""
    session.end()
    return OK


def kill_session(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """kill-session."""
    require_permission(device, session)
    number = request.findtext("session-id", "").strip()
    victim = device.sessions.get(int(number)) if number.isdigit() else None
    if victim is None or victim is session:
        raise RpcFailed("invalid session-id", tag="invalid-value", info={"bad-element": "session-id"})
    device.close_session(victim)
    victim.kill()
    return OK


def open_configuration(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """open-configuration: only the shared candidate is simulated."""
    require_permission(device, session)
    if len(request):
        raise RpcFailed("only the shared candidate is simulated", info={"bad-element": str(request[0].tag)})
    return OK


def close_configuration(_device: Mx80, _session: NetconfSession, _request: etree._Element) -> bytes:
    """close-configuration."""
    return OK


def _all_text(element: etree._Element) -> str:
    return "".join(map(str, element.itertext()))


def _number(text: str | None) -> int:
    if text is None or not text.strip().isdigit():
        raise RpcFailed("invalid numeric value", tag="invalid-value", info={"bad-element": text or ""})
    return int(text)


def _minutes(text: str | None) -> int:
    minutes = _number(text)
    if not 1 <= minutes <= 65535:
        raise RpcFailed(f"Value {minutes} is not within range (1..65535)", info={"bad-element": str(minutes)})
    return minutes


HANDLERS: Final[dict[str, Handler]] = {
    "lock-configuration": lock,
    "unlock-configuration": unlock,
    "load-configuration": load,
    "get-configuration": get_configuration,
    "commit-configuration": commit,
    "discard-changes": discard,
    "get-commit-information": commit_information,
    "get-rollback-information": rollback_information,
    "close-session": close_session,
    "request-end-session": close_session,
    "kill-session": kill_session,
    "open-configuration": open_configuration,
    "close-configuration": close_configuration,
}
