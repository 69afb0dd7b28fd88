"""Router mode as the rendezvous point of FRR's routers: shared trees out of the tunnel, Registers stopped."""

import subprocess
import sys

import pytest
from scripted.border_scene import border_scene, channel_row, measured, wrong_of

from lab import topology
from lab.frr import missing_for_frr
from lab.namespaces import missing_for_namespaces, stop, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_namespaces() + missing_for_frr()), reason=", ".join(missing)),
]

GROUP, INTERNAL_GROUP, OTHERS_GROUP = topology.ASM_GROUP_IPV4, "239.1.2.2", "239.2.2.2"
RENDEZVOUS = str(topology.border_downstream(0).ipv4)
AS_RENDEZVOUS = f'rendezvous_address = "{RENDEZVOUS}"\nrendezvous_groups = ["239.1.0.0/16"]\n'
BEHIND, HOST = 0, 1


@pytest.fixture(scope="module")
def scene(_nothing_abandoned, tmp_path_factory):
    sizes = {"routed": 1, "downstreams": 2, "receivers": 2}
    with border_scene(tmp_path_factory.mktemp("rendezvous"), sizes, sections=AS_RENDEZVOUS) as scene:
        scene.routers[0].configure(f"ip pim rp {RENDEZVOUS} 239.0.0.0/8\n")
        yield scene


def test_a_shared_tree_that_pimd_joins_is_an_any_source_subscription_at_the_relay(scene):
    scene.scenario.send(GROUP, "--rate", "200")
    receiver = scene.receive(GROUP, BEHIND, any_source=True)
    receiver.wait_for_more(20, packets=200)
    measured("time to first packet, s", receiver.figures["join_seconds"])
    assert scene.routers[0].json("show ip pim upstream")[GROUP]["*"]["joinState"] == "Joined"
    assert scene.relay_has(GROUP, None)
    assert channel_row(scene.scenario.border, GROUP)["packets"] > 0
    assert wrong_of(receiver) == [0, 0, 0]
    scene.quiet()


def test_a_group_we_are_not_the_rendezvous_point_of_is_refused_and_counted(scene):
    scene.receive(OTHERS_GROUP, BEHIND, any_source=True)

    def refused():
        pim = next(row for row in scene.scenario.border.get("interfaces")["items"] if row["name"] == "down0")["pim"]
        return pim[0]["refused"].get("not_rendezvous_group", 0)

    wait_until(refused, 10, "pimd's Join is refused")
    assert channel_row(scene.scenario.border, OTHERS_GROUP, None) is None
    scene.quiet()


def test_a_register_is_stopped_and_its_source_comes_natively(scene):
    names = scene.names
    source = str(names.receiver_address(BEHIND).ipv4)
    command = ("send", INTERNAL_GROUP, "--interface", topology.HOST_INTERFACE, "--rate", "200")
    sender = scene.lab.start(names.receiver(BEHIND), sys.executable, "-m", "lab", *command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: register_state(scene, source) == "RegPrune", 10, "Register-Stop came")
        host = scene.receive(INTERNAL_GROUP, HOST, any_source=True)
        host.wait_for_more(10, packets=100)
        row = channel_row(scene.scenario.border, INTERNAL_GROUP, source)
        assert (row["upstream"], row["incoming_interface"], row["outgoing_interfaces"]) == (
            "native",
            "down0",
            ["down1"],
        )
        assert not scene.relay_has(INTERNAL_GROUP, source)
        before = wrong_of(host)
        host.wait_for_more(10, packets=200)
        assert wrong_of(host) == before
        assert register_state(scene, source) == "RegPrune"
    finally:
        stop(sender)


def register_state(scene, source):
    """Whether pimd still registers a source with us (RFC 7761 §4.4.1)."""
    return scene.routers[0].json("show ip pim upstream").get(INTERNAL_GROUP, {}).get(source, {}).get("regState")
