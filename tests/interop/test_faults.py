"""What goes wrong between gateway and relay is over within its documented time, and spoils nothing it need not.

The relay's query interval is 1 s here. Recovery is bounded by the next Request cycle (one interval), or, where the
relay counts as lost, by the retransmissions of a Request (1, 2, 4 and 8 s, RFC 7450 §5.2.3.4) once the fault is over.
"""

from __future__ import annotations

import time

import pytest

from lab.namespaces import wait_until
from lab.topology import (
    ASM_GROUP_IPV4,
    BORDER_UPLINK,
    NUMBERED_GROUP_IPV4,
    RELAY,
    SSM_GROUP_IPV4,
    SSM_GROUP_IPV6,
    TRANSLATED,
    downstream,
)

pytestmark = [pytest.mark.root, pytest.mark.slow]

INTERVAL = 1.0  # of the relay's queries
SLACK = 2.0  # scheduling on a busy machine
NEXT_CYCLE = INTERVAL + SLACK
RETRANSMISSION = 8.0 * 1.1 + SLACK  # the longest wait of an exchange, with its jitter
LISTENER_REPORT = 1.0 + SLACK  # a host answers the querier's query
CONTROL = ["RELAY_DISCOVERY", "RELAY_ADVERTISEMENT", "REQUEST", "MEMBERSHIP_QUERY", "MEMBERSHIP_UPDATE", "TEARDOWN"]


def flowing(scenario, group=SSM_GROUP_IPV4, **how):
    """A stream of 200 packets a second and a receiver that gets it."""
    scenario.send(group, "--rate", "200", "--size", "400")
    counting = scenario.receive(group, **how)
    counting.wait_for_more(15.0)
    return counting


def quiet(counting, seconds=1.0):
    """Wait until nothing has come for `seconds`."""
    last = [counting.received, time.monotonic()]

    def still():
        if counting.received != last[0]:
            last[:] = [counting.received, time.monotonic()]
        return time.monotonic() - last[1] >= seconds

    wait_until(still, 15.0, "the stream stops")


@pytest.mark.parametrize(
    "fault",
    [{"duplicate": 0.5}, {"reorder": 0.3}, {"duplicate": 1.0, "reorder": 0.5}],
    ids=["duplicates", "reordering", "duplicates and reordering"],
)
def test_disturbed_control_messages_delay_a_join_and_lose_nothing(make_scenario, fault):
    scenario = make_scenario(faulty=True)
    scenario.faults(only=CONTROL, **fault)
    scenario.send(SSM_GROUP_IPV4, "--rate", "200")
    counting = scenario.receive(SSM_GROUP_IPV4)
    counting.wait_for_more(2 * RETRANSMISSION)
    counting.wait_for_more(3 * INTERVAL + SLACK, packets=500)  # across several query intervals
    assert counting.finish()["lost"] == 0


def test_lost_control_messages_delay_a_join_and_never_end_a_stream(make_scenario):
    """A relay of one-second queries forgets after 3 s: losing Requests for so long is chance, staying lost is not."""
    scenario = make_scenario(faulty=True)
    scenario.faults(only=CONTROL, loss=0.3)
    scenario.send(SSM_GROUP_IPV4, "--rate", "200")
    counting = scenario.receive(SSM_GROUP_IPV4)
    for _ in range(3):
        counting.wait_for_more(2 * RETRANSMISSION, packets=300)
    scenario.faults()
    counting.wait_for_more(NEXT_CYCLE + RETRANSMISSION)
    quantity = counting.received
    counting.wait_for_more(3 * INTERVAL + SLACK, packets=500)
    assert counting.received >= quantity + 500


def test_lost_data_is_counted_as_it_was_lost(make_scenario):
    scenario = make_scenario(faulty=True)
    counting = flowing(scenario)
    scenario.faults(only=["MULTICAST_DATA"], loss=0.2)
    counting.wait_for_more(10.0, packets=400)
    figures = counting.finish()
    assert 0.1 < figures["lost"] / (figures["lost"] + figures["received"]) < 0.3


def test_a_silent_relay_is_found_again(make_scenario):
    scenario = make_scenario(faulty=True)
    counting = flowing(scenario)
    scenario.faults(silence=True)
    quiet(counting)
    wait_until(lambda: not scenario.border.tunnels(), 30.0, "the relay counts as lost")
    scenario.faults()
    counting.wait_for_more(RETRANSMISSION)


def test_a_short_silence_is_survived_without_a_new_join(make_scenario):
    scenario = make_scenario(faulty=True)
    counting = flowing(scenario)
    scenario.faults(silence=True)
    quiet(counting)
    scenario.faults()
    counting.wait_for_more(SLACK)


@pytest.mark.parametrize("fault", ["wrong_mac", "stale_nonce", "other_address", "silence"])
def test_no_join_gets_through_until_the_fault_is_over(make_scenario, fault):
    scenario = make_scenario(faulty=True)
    scenario.faults(**{fault: True})
    scenario.send(SSM_GROUP_IPV4, "--rate", "200")
    counting = scenario.receive(SSM_GROUP_IPV4)
    wait_until(lambda: scenario.faults(**{fault: True})["from_gateway"] >= 2, 15.0, "the gateway tries")
    assert counting.received == 0
    scenario.faults()
    counting.wait_for_more(RETRANSMISSION)


def test_a_running_stream_survives_spoiled_queries(make_scenario):
    scenario = make_scenario(faulty=True)
    counting = flowing(scenario)
    for fault in ("wrong_mac", "stale_nonce", "limit"):
        scenario.faults(**{fault: True})
        counting.wait_for_more(2 * INTERVAL + SLACK, packets=int(200 * INTERVAL))
        scenario.faults()
        counting.wait_for_more(INTERVAL + SLACK, packets=200)
    assert counting.finish()["lost"] == 0


def test_a_key_rotation_loses_nothing_and_delays_a_join_to_the_next_cycle(make_scenario):
    scenario = make_scenario(faulty=True, sizes={"receivers": 2})
    first = flowing(scenario)
    scenario.faults(key=1)
    second = flowing(scenario, NUMBERED_GROUP_IPV4, receiver=1)
    assert second.figures["join_seconds"] < NEXT_CYCLE
    first.wait_for_more(NEXT_CYCLE, packets=int(200 * INTERVAL))
    assert first.finish()["lost"] == 0


def test_a_relay_at_its_limit_sends_newcomers_to_the_next_relay(make_scenario):
    other = f'\n[[gateway.relay]]\naddress = "{RELAY.ipv4}"\n'
    scenario = make_scenario(faulty=True, sections=other)
    scenario.faults(limit=True)
    wait_until(lambda: any(row["limited"] for row in scenario.border.get("tunnels")["items"]), NEXT_CYCLE, "L is seen")
    flowing(scenario)
    relays = {tunnel["id"]: tunnel["relay_address"] for tunnel in scenario.border.tunnels()}
    (channel,) = scenario.border.channels()
    assert [relays[tunnel] for tunnel in channel["tunnels"]] == [str(RELAY.ipv4)]


@pytest.mark.parametrize("field", ["keep", "strip"])
def test_a_tunnel_lives_with_and_without_the_gateway_field(make_scenario, field):
    scenario = make_scenario(faulty=True)
    scenario.faults(gateway_field=field)
    counting = flowing(scenario)
    counting.wait_for_more(2 * INTERVAL + SLACK, packets=int(200 * INTERVAL))
    assert counting.finish()["lost"] == 0


def test_a_relay_that_forgot_its_gateways_is_joined_again(make_scenario):
    scenario = make_scenario(faulty=True)
    counting = flowing(scenario)
    scenario.faults(forget=True)
    counting.wait_for_more(RETRANSMISSION)
    counting.wait_for_more(NEXT_CYCLE, packets=int(200 * INTERVAL))


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_a_restarted_relay_is_joined_again(make_scenario, ending):
    scenario = make_scenario()
    counting = flowing(scenario)
    getattr(scenario.relay, ending)()
    quiet(counting, 0.5)
    scenario.relay.start()
    counting.wait_for_more(RETRANSMISSION)


def test_a_killed_agent_resumes_its_channels_within_a_query_interval(make_scenario):
    scenario = make_scenario()
    counting = flowing(scenario)
    sixth = flowing(scenario, SSM_GROUP_IPV6)
    port = scenario.border.tunnels()[0]["local_port"]
    scenario.border.kill()
    quiet(counting, 0.5)
    scenario.border.start()
    counting.wait_for_more(LISTENER_REPORT + NEXT_CYCLE)
    sixth.wait_for_more(LISTENER_REPORT + NEXT_CYCLE)
    assert port in {tunnel["local_port"] for tunnel in scenario.border.tunnels()}


def test_a_stopped_agent_leaves_nothing_at_the_relay(make_scenario):
    scenario = make_scenario()
    flowing(scenario)
    wait_until(lambda: len(scenario.relay.tunnels()) == 1, 5.0, "the relay has the tunnel")
    assert scenario.border.stop() == 0
    wait_until(lambda: not scenario.relay.tunnels(), 5.0, "the tunnel is torn down")
    assert scenario.relay.channels() == []


def test_a_reload_loses_no_packet(make_scenario):
    scenario = make_scenario(sizes={"downstreams": 2, "receivers": 2})
    counting = flowing(scenario)
    before = scenario.border.process_id
    text = scenario.border.place.configuration.read_text()
    reloaded = text.replace("[igmp]", "[igmp]\nrobustness_variable = 3", 1)
    scenario.border.place.configuration.write_text(reloaded)
    etag = scenario.border.get("status")["configuration"]["etag"]
    scenario.border.reload()
    wait_until(lambda: scenario.border.get("status")["configuration"]["etag"] != etag, 10.0, "the reload is done")
    counting.wait_for_more(10.0, packets=400)
    assert scenario.border.process_id == before
    assert counting.finish()["lost"] == 0


def test_a_broken_file_is_not_loaded_and_disturbs_nothing(make_scenario):
    scenario = make_scenario()
    counting = flowing(scenario)
    scenario.border.place.configuration.write_text('role = "gatewy"\n')
    scenario.border.reload()
    status = scenario.border
    wait_until(lambda: status.get("status")["configuration"]["last_error"], 10.0, "the refusal is shown")
    counting.wait_for_more(10.0, packets=400)
    assert counting.finish()["lost"] == 0


def test_a_translated_gateway_survives_a_new_source_port(make_scenario):
    scenario = make_scenario(sizes={"translate": True}, gateway={"ipv6": False})
    counting = flowing(scenario)

    def seen() -> set[tuple[str, int]]:
        return {(tunnel["gateway_address"], tunnel["gateway_port"]) for tunnel in scenario.relay.tunnels()}

    ((address, port),) = seen()
    assert address == TRANSLATED
    assert 40000 <= port < 45000
    scenario.lab.translate_ports(50000, 54999)
    counting.wait_for_more(NEXT_CYCLE + RETRANSMISSION, packets=int(200 * INTERVAL))
    wait_until(
        lambda: {50000 <= port < 55000 for _, port in seen()} == {True}, NEXT_CYCLE, "the old tunnel is torn down"
    )


def test_an_uplink_that_comes_back_carries_on(make_scenario):
    scenario = make_scenario()
    counting = flowing(scenario)
    border = scenario.lab.topology.border
    scenario.lab.set_link(border, BORDER_UPLINK, up=False)
    quiet(counting)
    scenario.lab.set_link(border, BORDER_UPLINK, up=True)
    counting.wait_for_more(RETRANSMISSION)


@pytest.mark.parametrize("recreated", [False, True], ids=["down and up", "made anew"])
def test_a_downstream_link_that_comes_back_is_served_again(make_scenario, recreated):
    scenario = make_scenario()
    counting = flowing(scenario)
    lab, border = scenario.lab, scenario.lab.topology.border
    if recreated:
        lab.recreate_link(border, downstream(0))
    else:
        lab.set_link(border, downstream(0), up=False)
        quiet(counting)
        lab.set_link(border, downstream(0), up=True)
    counting.wait_for_more(LISTENER_REPORT + 4.0 + SLACK)  # one query interval of the border's querier


def test_any_source_joins_carry_every_source(make_scenario):
    scenario = make_scenario()
    counting = flowing(scenario, ASM_GROUP_IPV4, any_source=True)
    counting.wait_for_more(10.0, packets=400)
    assert counting.finish()["lost"] == 0
