"""Raw replies (synthetic, `replies/`) beside the neutral JSON they must give; garbage and silence told apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from relaymgr.domain.observed import TunnelState
from relaymgr.drivers.junos import observation
from relaymgr.drivers.junos.durations import seconds
from relaymgr.drivers.netconf.documents import parse

REPLIES = Path(__file__).parent / "replies"
RPCS = tuple(sorted(path.name.removesuffix(".synthetic.xml") for path in REPLIES.glob("*.synthetic.xml")))


def reply(name: str) -> Any:
    return parse((REPLIES / f"{name}.synthetic.xml").read_bytes())


def neutral(name: str) -> Any:
    tunnels = reply("get-amt-tunnel-information")
    read = {
        "get-amt-tunnel-information": lambda: observation.tunnels(tunnels),
        "get-multicast-route-information": lambda: observation.channels(
            reply(name), observation.tunnel_channels(tunnels)
        ),
        "get-pim-neighbors-information": lambda: observation.neighbors(reply(name)),
        "get-amt-statistics": lambda: observation.statistics(
            observation.summary(reply("get-amt-summary")), reply(name)
        ),
    }[name]()
    found = [asdict(one) for one in read] if isinstance(read, tuple) else asdict(read)
    return json.loads(json.dumps(found, default=str))


@pytest.mark.parametrize("name", [name for name in RPCS if name != "get-amt-summary"])
def test_a_reply_becomes_the_neutral_json(name):
    expected = REPLIES / f"{name}.expected.json"
    found = neutral(name)
    if os.environ.get("ISTHMUS_WRITE_GOLDENS"):
        expected.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(expected.read_text())


@pytest.mark.parametrize("name", RPCS)
def test_the_synthetic_replies_are_the_vendors_yang(name):
    folder = Path(os.environ.get("ISTHMUS_YANG", Path(__file__).parents[4] / "shared" / "yang"))
    if not (folder / "rpcval.py").exists() or shutil.which("yanglint") is None:
        pytest.skip("Juniper's YANG (shared/yang) or yanglint is not here: nothing validates the replies")
    command = [sys.executable, folder / "rpcval.py", name, REPLIES / f"{name}.synthetic.xml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_is_never_zero():
    first, second = observation.tunnels(reply("get-amt-tunnel-information"))
    assert first.state is TunnelState.ACTIVE
    assert second.state is TunnelState.UNKNOWN
    assert second.vendor_state == "Quiescent"
    assert (second.requests, second.channels, second.inactivity_timeout_seconds) == (None, None, None)
    still = observation.channels(reply("get-multicast-route-information"), None)[1]
    assert (still.packets, still.packets_per_second, still.kilobits_per_second) == (None, None, None)
    assert still.gateways is None
    gauges = observation.summary(reply("get-amt-summary"))
    statistics = observation.statistics(gauges, reply("get-amt-statistics"))
    assert statistics.active_streams is None
    assert statistics.stream_limit == 0
    assert "invalid_mac" not in statistics.errors
    assert statistics.errors["invalid_address"] == 5


@pytest.mark.parametrize("read", [observation.tunnels, observation.neighbors, lambda r: observation.channels(r, None)])
def test_what_does_not_run_is_told_from_garbage(read):
    with pytest.raises(observation.NotRunning, match="AMT instance is not running"):
        read(parse(b"<rpc-reply><output>AMT instance is not running</output></rpc-reply>"))
    with pytest.raises(observation.Unreadable):
        read(parse(b"<rpc-reply><ok/></rpc-reply>"))


@pytest.mark.parametrize(
    "inside",
    [
        "<amt-tunnel/>",
        "<amt-tunnel><amt-tunnel-gateway-address>nonsense</amt-tunnel-gateway-address></amt-tunnel>",
        "<amt-tunnel><amt-tunnel-gateway-port>5</amt-tunnel-gateway-port></amt-tunnel>",
        "<amt-tunnel><amt-tunnel-gateway-address>192.0.2.1</amt-tunnel-gateway-address></amt-tunnel>",
    ],
)
def test_a_tunnel_without_identity_is_unreadable(inside):
    document = f"<rpc-reply><amt-tunnel-information>{inside}</amt-tunnel-information></rpc-reply>"
    with pytest.raises(observation.Unreadable):
        observation.tunnels(parse(document.encode()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("125", 125),
        ("125s", 125),
        ("00:02:05", 125),
        ("02:05", 7500),
        ("1d 02:03:04", 93784),
        ("2d 03:04", 183840),
        ("1w2d 03:04:05", 788645),
        ("1w2d", 777600),
        ("3 days, 1:02", 262920),
        ("5m3s", 303),
        ("never", None),
        ("", None),
        (None, None),
        ("-5", None),
    ],
)
def test_durations(text, expected):
    assert seconds(text) == expected
