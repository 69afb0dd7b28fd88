"""Mode `router` beside FRR's pimd: what it joins we subscribe to, what it prunes we leave, and nobody is left over."""

import json
import sys
import time
from datetime import datetime

import pytest

from lab import topology
from lab.frr import FrrRouter, domain_router, missing_for_frr
from lab.namespaces import missing_for_namespaces, stop, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_namespaces() + missing_for_frr()), reason=", ".join(missing)),
]

GROUP = topology.NUMBERED_GROUP_IPV4
SOURCE = str(topology.SOURCE.ipv4)
RENDEZVOUS = str(topology.border_downstream(0).ipv4)
AS_RENDEZVOUS = f"""rendezvous_address = "{RENDEZVOUS}"
rendezvous_groups = ["239.1.0.0/16"]
"""
QUICK_PIM = """
[pim]
hello_interval = 1.0
join_prune_interval = 5.0
"""
ROUTER = str(topology.router_upstream(1).ipv4)
INTEREST = {"kind": "pim", "interface": "down0", "neighbor": ROUTER, "excluded_sources": []}


@pytest.fixture
def make_domain(make_scenario, tmp_path):
    """A relay, a border agent and FRR as the domain's routers in a row."""
    started = []

    def make(routed=1, sections="", **sizes):
        scenario = make_scenario(sizes={"routed": routed, **sizes}, sections=QUICK_PIM + sections)
        names = scenario.lab.topology
        routers = [
            FrrRouter(scenario.lab, names.routers()[index - 1], tmp_path, domain_router(names, index))
            for index in range(1, routed + 1)
        ]
        for router in routers:
            started.append(router)
            router.start()
        return scenario, routers

    yield make
    for router in reversed(started):
        router.close()


def channel_row(scenario, source=SOURCE, group=GROUP):
    rows = scenario.border.channels()
    return next((row for row in rows if (row["source"], row["group"]) == (source, group)), None)


def wait_for_channel(scenario, seconds=20.0):
    wait_until(lambda: (row := channel_row(scenario)) and row["packets"], seconds, "the channel is carried")


def wait_for_none(scenario, seconds):
    wait_until(lambda: channel_row(scenario) is None, seconds, "the channel is gone")


def neighbors(scenario):
    return [row for row in scenario.border.get("neighbors")["items"] if row["kind"] == "pim"]


def wait_for_neighbor(scenario):
    wait_until(lambda: neighbors(scenario), 20, "FRR is a neighbour")


def test_a_receiver_behind_two_routers_gets_the_stream_and_leaves_again(make_domain):
    scenario, routers = make_domain(routed=2)
    wait_for_neighbor(scenario)
    scenario.send(GROUP, "--rate", "200")
    receiver = scenario.receive(GROUP)
    wait_for_channel(scenario)
    receiver.wait_for_more(20, packets=100)
    row = channel_row(scenario)
    assert row["interests"] == [INTEREST]
    assert (row["upstream"], row["incoming_interface"], row["outgoing_interfaces"]) == ("tunnel", "amt0", ["down0"])
    assert row["reason"] is None
    upstream = routers[0].json("show ip pim upstream")[GROUP][SOURCE]
    assert upstream["inboundInterface"] == topology.ROUTER_UPSTREAM
    assert upstream["joinState"] == "Joined"
    mroute = routers[0].json("show ip mroute")[GROUP][SOURCE]
    assert mroute["iif"] == topology.ROUTER_UPSTREAM
    assert set(mroute["oil"]) == {topology.ROUTER_DOWNSTREAM}
    figures = receiver.finish()
    assert figures["lost"] == figures["duplicates"] == figures["reordered"] == 0
    wait_for_none(scenario, 15)
    wait_until(lambda: not scenario.border.tunnels() or scenario.border.tunnels()[0]["channels"] == 0, 5, "left")


def test_frr_takes_us_for_a_neighbour_and_we_show_what_it_told(make_domain):
    scenario, (router,) = make_domain()
    wait_for_neighbor(scenario)
    (row,) = neighbors(scenario)
    assert (row["interface"], row["address"], row["priority"]) == ("down0", ROUTER, 1)
    assert row["designated"] is True  # its address is higher than ours
    assert isinstance(row["generation_id"], int)
    ours = [str(topology.border_downstream(0).ipv4)]
    # Our answer to its first Hello comes within Triggered_Hello_Delay, five seconds (RFC 7761 §4.11).
    wait_until(lambda: list(router.json("show ip pim neighbor")[topology.ROUTER_UPSTREAM]) == ours, 10, "FRR sees us")
    pim = next(row for row in scenario.border.get("interfaces")["items"] if row["name"] == "down0")["pim"]
    assert (pim[0]["family"], pim[0]["designated_router"], pim[0]["neighbors"]) == (4, ROUTER, 1)
    assert pim[0]["refused"] == {}


def test_hosts_of_a_link_whose_designated_router_frr_is_are_served_once(make_domain):
    """The host sits beyond FRR; on our own LAN only FRR's Join counts, whatever else is reported there."""
    scenario, _ = make_domain()
    wait_for_neighbor(scenario)
    scenario.send(GROUP, "--rate", "200")
    receiver = scenario.receive(GROUP)
    wait_for_channel(scenario)
    receiver.wait_for_more(20)
    assert channel_row(scenario)["interests"] == [INTEREST]
    assert receiver.is_whole()


def test_a_restart_of_pimd_brings_the_stream_back(make_domain):
    scenario, (router,) = make_domain()
    wait_for_neighbor(scenario)
    scenario.send(GROUP, "--rate", "200")
    receiver = scenario.receive(GROUP)
    wait_for_channel(scenario)
    receiver.wait_for_more(20)
    before = neighbors(scenario)[0]["generation_id"]
    router.kill("pimd")
    # FRR draws its Generation ID from the second it starts in, and this pimd may be younger than that.
    second = int(time.time())
    wait_until(lambda: int(time.time()) > second, 2, "the next second")
    router.restart("pimd")
    wait_until(lambda: [row["generation_id"] for row in neighbors(scenario)] not in ([], [before]), 20, "a new GenID")
    receiver.wait_for_more(30)
    assert channel_row(scenario)["interests"] == [INTEREST]


def test_a_pimd_that_crashed_leaves_nothing_behind(make_domain):
    scenario, (router,) = make_domain()
    wait_for_neighbor(scenario)
    scenario.send(GROUP, "--rate", "200")
    receiver = scenario.receive(GROUP)
    wait_for_channel(scenario)
    receiver.wait_for_more(20)
    router.kill("pimd")
    wait_for_none(scenario, 25)  # at the latest when the holdtime of its last Join is over
    wait_until(lambda: not neighbors(scenario), 10, "the neighbour is gone")


def test_a_restart_of_the_agent_is_healed_by_pimds_next_join(make_domain):
    scenario, _ = make_domain()
    wait_for_neighbor(scenario)
    scenario.send(GROUP, "--rate", "200")
    receiver = scenario.receive(GROUP)
    wait_for_channel(scenario)
    receiver.wait_for_more(20)
    scenario.border.kill()
    scenario.border.start()
    began = time.monotonic()
    wait_for_channel(scenario)
    receiver.wait_for_more(10)
    assert channel_row(scenario)["interests"] == [INTEREST]
    assert time.monotonic() - began < 20


def test_any_source_groups_come_through_us_as_their_rendezvous_point(make_domain):
    scenario, (router,) = make_domain(sections=AS_RENDEZVOUS)
    router.configure(f"ip pim rp {RENDEZVOUS} 239.1.0.0/16\n")
    wait_for_neighbor(scenario)
    group = topology.ASM_GROUP_IPV4
    scenario.send(group, "--rate", "200")
    receiver = scenario.receive(group, any_source=True)
    wait_until(lambda: channel_row(scenario, None, group), 20, "the shared tree is joined")
    receiver.wait_for_more(20, packets=200)
    row = channel_row(scenario, None, group)
    assert row["interests"] == [INTEREST]
    assert (row["upstream"], row["outgoing_interfaces"]) == ("tunnel", ["down0"])
    assert channel_row(scenario, SOURCE, group)["packets"] > 0
    receiver.finish()
    wait_until(lambda: not scenario.border.channels(), 30, "both are left")


def test_a_source_of_the_domain_registers_with_us_and_reaches_hosts_on_another_link(make_domain):
    scenario, (router,) = make_domain(sections=AS_RENDEZVOUS, downstreams=2, receivers=2)
    router.configure(f"ip pim rp {RENDEZVOUS} 239.1.0.0/16\n")
    wait_for_neighbor(scenario)
    group, names = topology.ASM_GROUP_IPV4, scenario.lab.topology
    source = str(names.receiver_address(0).ipv4)
    command = (sys.executable, "-m", "lab", "send", group, "--interface", topology.HOST_INTERFACE, "--rate", "50")
    sender = scenario.lab.start(names.receiver(0), *command)
    try:
        registered = f"pim source registered channel=({source},{group})"
        wait_until(lambda: registered in scenario.border.place.log.read_text(), 20, "the source is registered")
        receiver = scenario.receive(group, any_source=True, receiver=1)
        receiver.wait_for_more(20, packets=50)
        row = channel_row(scenario, source, group)
        assert (row["upstream"], row["incoming_interface"], row["upstream_neighbor"]) == ("native", "down0", ROUTER)
        assert row["outgoing_interfaces"] == ["down1"]
    finally:
        stop(sender)


def test_the_log_tells_of_neighbours_in_pairs_of_key_and_value(make_domain):
    scenario, (router,) = make_domain()
    wait_for_neighbor(scenario)
    router.stop("pimd")
    wait_until(lambda: not neighbors(scenario), 15, "the neighbour is gone")
    log = scenario.border.place.log.read_text()
    assert f"pim neighbor up interface=down0 neighbor={ROUTER}" in log
    assert f"pim neighbor down interface=down0 neighbor={ROUTER} reason=" in log
    assert "pim designated router interface=down0 family=4" in log
    assert json.dumps(log)


def test_a_default_route_will_do_once_frr_resolves_by_it(make_domain):
    """Unless told, the RPF of FRR 8.4 passes a default route over, towards a source as towards a rendezvous point."""
    away = "10.255.0.1"
    scenario, (router,) = make_domain(sections=AS_RENDEZVOUS.replace(RENDEZVOUS, away))
    router.configure(
        f"no ip route {topology.EXTERNAL_PREFIXES[0]} {RENDEZVOUS}\n"
        f"ip nht resolve-via-default\nip pim rp {away} 239.1.0.0/16\n"
    )
    assert SOURCE.rpartition(".")[0] not in router.vtysh("show ip route")
    wait_for_neighbor(scenario)
    for group in (GROUP, topology.ASM_GROUP_IPV4):
        scenario.send(group, "--rate", "100")
        scenario.receive(group, any_source=group != GROUP).wait_for_more(20)


def test_a_reload_of_pim_costs_frrs_receivers_nothing(make_domain):
    scenario, (router,) = make_domain()
    wait_for_neighbor(scenario)
    scenario.send(GROUP, "--rate", "200")
    receiver = scenario.receive(GROUP)
    wait_for_channel(scenario)
    receiver.wait_for_more(20)
    (before,), since = neighbors(scenario), channel_row(scenario)["since"]
    file = scenario.border.place.configuration
    for section in ("[pim]\ndr_priority = 7", "[pim]\nassert_metric = 5\npropagation_delay = 0.2"):
        etag = scenario.border.get("status")["configuration"]["etag"]
        file.write_text(file.read_text().replace("[pim]", section, 1))
        scenario.border.reload()
        wait_until(
            lambda etag=etag: scenario.border.get("status")["configuration"]["etag"] != etag, 10.0, "it is loaded"
        )
        receiver.wait_for_more(10.0, packets=300)
    wait_until(
        lambda: (
            router.json("show ip pim interface detail")[topology.ROUTER_UPSTREAM]["drAddress"]
            == str(topology.border_downstream(0).ipv4)
        ),
        10.0,
        "FRR knows the new priority",
    )
    (after,) = neighbors(scenario)
    assert after["generation_id"] == before["generation_id"]
    assert after["uptime"] > before["uptime"]
    moment = datetime.fromisoformat(channel_row(scenario)["since"])
    assert abs((moment - datetime.fromisoformat(since)).total_seconds()) < 0.001  # the clocks' rounding
    figures = receiver.finish()
    assert figures["lost"] == figures["duplicates"] == 0
