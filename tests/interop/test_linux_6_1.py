"""Debian 12's kernel, Linux 6.1: no segmentation offload on a tap, and as User Mode Linux no IPv6 multicast routing.

The last three tests boot it and run tests of this directory in it, the first test of this file among them. Its one CPU
is slow under ptrace, hence low rates, few tests of each kind, and no judgement of timing or load. What its kernel lacks
is skipped by name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lab.frr import missing_for_frr
from lab.kernel_amt.testing import run_tests
from lab.topology import SSM_GROUP_IPV4, SSM_GROUP_IPV6

pytestmark = pytest.mark.root

RELEASE = tuple(int(part) for part in os.uname().release.split(".")[:2])
ROUTES_IPV6 = Path("/proc/net/ip6_mr_vif").exists()


@pytest.mark.slow
def test_a_stream_crosses_whole_and_status_tells_what_this_kernel_lacks(make_scenario) -> None:
    """Both agents as users run them; where IPv6 is not routed, receivers who want it do no harm and cost no traffic."""
    scenario = make_scenario()
    scenario.send(SSM_GROUP_IPV4, "--rate", "50")
    receiver, other = scenario.receive(SSM_GROUP_IPV4), scenario.receive(SSM_GROUP_IPV6)
    receiver.wait_for_more(20.0, packets=200)
    assert (receiver.finish(), receiver.is_whole()) == (receiver.figures, True), scenario.border.log_tail()
    status = scenario.border.get("status")
    details = status["engine"]["details"]
    offered = RELEASE >= (6, 2)
    words = "many packets a write" if offered else "not offered by this kernel (needs Linux 6.2), one packet a write"
    assert words in details["segmentation"]
    assert (details["ipv6"] == "no multicast routing") is not ROUTES_IPV6
    told = [] if ROUTES_IPV6 else ["family_not_carried"]
    assert [problem["code"] for problem in status["problems"]] == told
    assert ("IPv6 multicast is not carried" in scenario.border.log_tail()) is not ROUTES_IPV6
    wanted = {channel["group"] for channel in scenario.relay.channels()}
    assert (SSM_GROUP_IPV6 in wanted) is ROUTES_IPV6
    other.finish()


HERE = Path(__file__).parent
LACKING = re.compile(
    r"FRR needs |no (IPV6 multicast routing with table 253|IPV[46] multicast routing with table (77|4242)) in this"
)


def passed_in_the_guest(lab, files: list[str], chosen: str, *, tidy: bool = False) -> int:
    """How many tests passed in the guest; none failed, and none was skipped but for what its kernel lacks."""
    run = run_tests(lab, [HERE / name for name in files], chosen, tidy=tidy)
    assert [line for line in run.skipped if not LACKING.search(line)] == []
    return run.passed


ENGINES = """
    not thirty_third and not both_families and not ipv6_fragments and not [6- and not -6-4] and not -6-6]
    and not ((test_engine_routing or damaged_payload or options_and or by_its_reason) and -6])
"""
"""What forwards IPv6 would be skipped, each test of it after programs were loaded."""


@pytest.mark.uml
@pytest.mark.slow
def test_the_engine_forwards_refuses_and_routes_as_debian_12_runs_it(make_lab) -> None:
    """On every plane."""
    files = ["test_engine_forwarding.py", "test_engine_refusals.py", "test_engine_routing.py"]
    assert passed_in_the_guest(make_lab(receivers=0), files, ENGINES, tidy=True) >= 145


SOCKETS_AND_AGENTS = """
    crosses or test_rawlink or (test_interfaces_monitor and not hundred and not lost_messages)
    or (test_udp_sockets and not ipv6)
    or (test_relay_fanout and (outer4 and byte_for_byte or offloaded or segments or vlan or socket_limit))
"""


@pytest.mark.uml
@pytest.mark.slow
def test_sockets_links_and_agents_work_as_debian_12_runs_them(make_lab) -> None:
    files = ["test_linux_6_1.py", "test_rawlink.py", "test_relay_fanout.py", "test_interfaces_monitor.py"]
    files.append("test_udp_sockets.py")
    assert passed_in_the_guest(make_lab(receivers=0), files, SOCKETS_AND_AGENTS) >= 38


BORDER = """
    (test_engine_native and (253-4 or (link_in_place and userspace-4))) or (test_engine_live_live and 4-packet)
    or (test_channel_moves and becomes_native and userspace-4)
    or (test_pim_links and (goodbye or forward_one)) or (test_unicast_routes and (goes_is_told or leads_elsewhere))
    or (test_unicast_rules and (takes_the_default or (changed_default and [4])))
    or (test_frr_mode and unicast_to_the_source)
"""


@pytest.mark.uml
@pytest.mark.slow
def test_native_sources_pim_and_frr_beside_us_work_as_debian_12_runs_them(make_lab) -> None:
    """Upcalls, moves in place, duplicates packet by packet, PIM on links and on the tap, rules for unicast."""
    files = ["test_engine_native.py", "test_engine_live_live.py", "test_channel_moves.py", "test_pim_links.py"]
    files += ["test_unicast_routes.py", "test_unicast_rules.py", "test_frr_mode.py"]
    assert passed_in_the_guest(make_lab(receivers=0), files, BORDER) >= (11 if missing_for_frr() else 12)
