"""RelayIntent to Junos: golden texts (synthetic, `goldens/`), Juniper's YANG, and what an intent owns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Capability, CapabilityMissing
from relaymgr.drivers.junos.rendering import render
from relaymgr.drivers.junos.scope import Path as ScopePath
from relaymgr.drivers.junos.scope import locate
from relaymgr.drivers.junos.trees import change, cut, from_text
from relaymgr.drivers.netconf.documents import descendants

LOOPBACK = "interfaces/interface[lo0]/unit[0]/family/inet/address[{}/32]"
ADDRESSES = (LOOPBACK.format("192.0.2.1"), LOOPBACK.format("198.51.100.7"))
GOLDENS = Path(__file__).parent / "goldens"


def yang_validator(name: str) -> Path:
    """`shared/yang` beside the checkout, or where ISTHMUS_YANG says."""
    folder = Path(os.environ.get("ISTHMUS_YANG", Path(__file__).parents[4] / "shared" / "yang"))
    if not (folder / name).exists() or shutil.which("yanglint") is None:
        pytest.skip("Juniper's YANG (shared/yang) or yanglint is not here: nothing validates the XML")
    return folder / name


def variants(full: RelayIntent, smallest: RelayIntent) -> dict[str, tuple[RelayIntent, bool]]:
    return {
        "smallest": (smallest, False),
        "smallest-drained": (smallest, True),
        "full": (full, False),
        "full-drained": (full, True),
    }


@pytest.mark.parametrize("name", ["smallest", "smallest-drained", "full", "full-drained"])
def test_renders_the_golden_text(name, full, smallest):
    intent, drained = variants(full, smallest)[name]
    owned = render(intent, drained=drained)
    golden = GOLDENS / f"{name}.synthetic.xml"
    if os.environ.get("ISTHMUS_WRITE_GOLDENS"):
        golden.write_text(owned.text)
    assert owned.text == golden.read_text()


@pytest.mark.parametrize("name", ["smallest", "smallest-drained", "full", "full-drained"])
def test_passes_the_vendors_yang(name, full, smallest, tmp_path):
    validator = yang_validator("junosval.py")
    intent, drained = variants(full, smallest)[name]
    document = tmp_path / "configuration.xml"
    document.write_text(render(intent, drained=drained).text)
    done = subprocess.run([sys.executable, validator, document], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_rendered_element_lies_in_the_scope(full):
    owned = render(full, drained=False)
    assert cut(from_text(owned.text), owned.scope) == owned.text
    assert change(owned.scope, owned.text, owned.text) == ""


def test_a_drain_takes_the_announcement_and_nothing_of_the_tunnels(full):
    up, drained = render(full, drained=False), render(full, drained=True)
    assert up.scope == drained.scope
    before, after = from_text(up.text), from_text(drained.text)
    gone = {path for path in up.scope if locate(after, ScopePath.parse(path)) is None}
    assert gone == {LOOPBACK.format("192.0.2.1"), "routing-options/static/route[192.0.2.0/24]"}
    for kept in ("protocols/amt", LOOPBACK.format("198.51.100.7")):
        path = ScopePath.parse(kept)
        assert change((kept,), up.text, drained.text) == ""
        assert locate(before, path) is not None
    policy = locate(after, ScopePath.parse("policy-options/policy-statement[AMT-ANYCAST]"))
    assert policy is not None
    assert next(descendants(policy, "reject"), None) is not None
    assert next(descendants(policy, "accept"), None) is None


def test_the_filter_lets_everything_else_pass(full):
    root = from_text(render(full, drained=False).text)
    terms = list(descendants(locate(root, ScopePath.parse("firewall/family/inet/filter[AMT-PROTECT]")), "term"))
    last = terms[-1]
    assert next(descendants(last, "from"), None) is None
    assert next(descendants(last, "accept"), None) is not None
    for term in terms[:-1]:
        assert [port.text for port in descendants(term, "destination-port")] == ["2268"]
        assert next(descendants(term, "destination-address"), None) is not None


def test_what_is_not_in_the_intent_is_not_owned(smallest):
    assert set(render(smallest, drained=False).scope) == {
        "protocols/amt",
        LOOPBACK.format("192.0.2.1"),
        LOOPBACK.format("198.51.100.7"),
    }


def test_a_routing_instance_holds_the_protocols(full_values):
    intent = RelayIntent.model_validate(full_values | {"junos": {"routing_instance": "MCAST", "loopback_unit": 5}})
    owned = render(intent, drained=False)
    assert "routing-instances/instance[MCAST]/protocols/amt" in owned.scope
    assert "routing-instances/instance[MCAST]/interface[lo0.5]" in owned.scope
    assert all(path in owned.scope for path in (at.replace("unit[0]", "unit[5]") for at in ADDRESSES))
    assert "lo0.5" in render(intent, drained=True).text
    assert not any(path.startswith("protocols/") for path in owned.scope)
    assert cut(from_text(owned.text), owned.scope) == owned.text


@pytest.mark.parametrize(
    "extra",
    [
        {"inet6": {"anycast_prefix": "2001:db8::/64", "local_address": "2001:db8:1::1"}},
        {"group_policy": {"name": "G", "permit": ["ff3e::/32"]}},
        {"protection_filter": {"name": "F", "permit_from": ["2001:db8::/32"]}},
    ],
)
def test_ipv6_is_refused_before_anything_is_touched(full_values, extra):
    with pytest.raises(CapabilityMissing) as refused:
        render(RelayIntent.model_validate(full_values | extra), drained=False)
    assert refused.value.capability is Capability.AMT_IPV6
    assert "inet6" in refused.value.reason
