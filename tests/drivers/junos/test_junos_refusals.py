"""What Junos and PyEZ say when they refuse, and what the commit history tells."""

from __future__ import annotations

import pytest
from jnpr.junos import exception as pyez
from lxml import etree

from relaymgr.domain.configuration import Confirmation
from relaymgr.drivers.errors import ConfigurationRefused, DeadlineExceeded, DeviceBusy, Garbage, SessionLost
from relaymgr.drivers.junos import commit_history
from relaymgr.drivers.junos.pyez_errors import only_warnings, operation_error
from relaymgr.drivers.junos.refusals import masked, refusal
from relaymgr.drivers.netconf.documents import parse


@pytest.mark.parametrize(
    ("message", "tag", "kind", "holder"),
    [
        ("configuration database locked by:\n  root terminal p0 (pid 25) on since 2024", None, DeviceBusy, "root"),
        ("configuration database modified", None, DeviceBusy, None),
        ("anything", "lock-denied", DeviceBusy, None),
        ("syntax error", None, ConfigurationRefused, None),
        ("permission denied", None, ConfigurationRefused, None),
    ],
)
def test_words_of_junos(message, tag, kind, holder):
    found = refusal("mx", message, path="[edit protocols amt]", tag=tag)
    assert isinstance(found, kind)
    assert getattr(found, "holder", None) == holder
    if isinstance(found, ConfigurationRefused):
        assert found.path == "[edit protocols amt]"


def test_secrets_are_masked():
    for secret in ("$9$abcDEF/x", "$6$salt$hash", '$1$x$y";'):
        assert secret.rstrip('";') not in masked(f'secret "{secret}"; ## SECRET-DATA')


def _rsp(severity: str) -> etree._Element:
    return etree.fromstring(
        f"<rpc-error><error-severity>{severity}</error-severity><error-path>[edit system]</error-path>"
        "<error-message>no such thing</error-message></rpc-error>"
    )


def test_errors_of_pyez():
    class Dev:
        hostname = "mx"
        connected = True

    refused = operation_error("mx", "load", pyez.ConfigLoadError(rsp=_rsp("error")))
    assert isinstance(refused, ConfigurationRefused)
    assert (refused.path, refused.detail) == ("[edit system]", "no such thing")
    assert isinstance(operation_error("mx", "commit", pyez.RpcTimeoutError(Dev(), "x", 1)), DeadlineExceeded)
    assert isinstance(operation_error("mx", "commit", pyez.ConnectClosedError(Dev())), SessionLost)
    assert isinstance(operation_error("mx", "diff", AttributeError("None has no text")), Garbage)
    hidden = RuntimeWarning("unknown exception")
    hidden.__context__ = OSError("socket is closed")
    assert isinstance(operation_error("mx", "diff", hidden), SessionLost)
    assert only_warnings(pyez.ConfigLoadError(rsp=_rsp("warning")))
    assert not only_warnings(pyez.ConfigLoadError(rsp=_rsp("error")))
    assert not only_warnings(OSError())


def history(*texts: str, seconds: int = 1_700_000_000) -> commit_history.CommitEntry:
    said = "".join(texts)
    found = commit_history.newest(
        parse(
            "<rpc-reply xmlns:junos='http://xml.juniper.net/junos/15.1R7/junos'><commit-information><commit-history>"
            f"<sequence-number>0</sequence-number><user>noc</user><client>cli</client>"
            f"<date-time junos:seconds='{seconds}'>"
            f"then</date-time>{said}</commit-history><commit-history><sequence-number>1</sequence-number>"
            "<comment>commit confirmed, rollback in 9mins</comment></commit-history></commit-information>"
            "</rpc-reply>".encode()
        )
    )
    assert found is not None
    return found


WAITS = "<comment>commit confirmed, rollback in 5mins</comment>"


@pytest.mark.parametrize(
    ("texts", "clock", "expected"),
    [
        ((), 1_700_000_001, (Confirmation.NONE, None)),
        (("<log>isthmus 1 confirmed</log>",), None, (Confirmation.NONE, None)),
        ((WAITS,), 1_700_000_100, (Confirmation.PENDING, 200)),
        ((WAITS, "<log>isthmus 1</log>"), None, (Confirmation.PENDING, None)),
        ((WAITS,), 1_700_000_310, (Confirmation.PENDING, 0)),
        ((WAITS,), 1_700_009_000, (Confirmation.NONE, None)),
        ((WAITS,), 1_600_000_000, (Confirmation.PENDING, 300)),  # its clock was set back: no longer than announced
    ],
)
def test_whether_a_commit_waits(texts, clock, expected):
    assert commit_history.confirmation(history(*texts), clock) == expected


def test_who_committed_last_and_whose_it_is():
    entry = history(WAITS, "<log>isthmus 01J0ABC drain for maintenance</log>")
    assert (entry.record.user, entry.record.client) == ("noc", "cli")
    assert entry.record.at is not None
    assert "drain for maintenance" in (entry.record.comment or "")
    assert entry.carries("isthmus 01J0ABC")
    assert not entry.carries("isthmus 01J0AB")
    assert not entry.carries("isthmus 01J0ABCD")
    another = history("<log>isthmus 01J0XYZ does isthmus 01J0ABC again</log>")
    assert another.carries("isthmus 01J0XYZ")
    assert not another.carries("isthmus 01J0ABC"), "what an operator says of another change makes it nobody's"
    assert commit_history.newest(parse(b"<rpc-reply><commit-information/></rpc-reply>")) is None
