"""The lab is what it says it is: unicast everywhere, multicast only where it is native, nothing left behind."""

from __future__ import annotations

import json
import sys

import pytest

from lab.namespaces import NAMESPACE_DIRECTORY, LabError, delete_abandoned
from lab.topology import (
    ASM_GROUP_IPV4,
    BORDER,
    HOST_INTERFACE,
    RELAY,
    RELAY_NATIVE,
    SOURCE,
    SSM_GROUP_IPV4,
    SSM_GROUP_IPV6,
)

pytestmark = pytest.mark.root


def receive(lab, namespace, source, group, interface, *options):
    command = [sys.executable, "-m", "lab", "receive", str(source), group, "--interface", interface, *options]
    return json.loads(lab.run(namespace, *command, check=False).stdout.splitlines()[-1])


@pytest.mark.parametrize("translate", [False, True])
def test_unicast_reaches_from_receiver_to_source(make_lab, translate):
    lab = make_lab(downstreams=2, receivers=2, translate=translate)
    names = lab.topology
    for target in (RELAY.ipv4, RELAY.ipv6, SOURCE.ipv6):
        assert lab.run(names.border, "ping", "-c1", "-W2", str(target)).returncode == 0
    assert lab.run(names.receiver(1), "ping", "-c1", "-W2", str(SOURCE.ipv6)).returncode == 0


def test_multicast_is_native_beside_the_source_and_absent_beyond_the_internet(make_lab):
    lab = make_lab()
    names = lab.topology
    for source, group in (("*", ASM_GROUP_IPV4), (SOURCE.ipv4, SSM_GROUP_IPV4), (SOURCE.ipv6, SSM_GROUP_IPV6)):
        sender = [sys.executable, "-m", "lab", "send", group, "--interface", HOST_INTERFACE, "--seconds", "20"]
        process = lab.start(names.source, *sender)
        native = receive(lab, names.relay, source, group, RELAY_NATIVE, "--packets", "500", "--seconds", "15")
        assert (native["received"], native["lost"]) == (500, 0)
        beyond = receive(lab, names.receiver(), source, group, HOST_INTERFACE, "--seconds", "1")
        assert beyond["received"] == 0
        process.kill()


def test_links_come_back_under_their_name(make_lab):
    lab = make_lab()
    border = lab.topology.border

    def index() -> int:
        return json.loads(lab.run(border, "ip", "-j", "link", "show", "down0").stdout)[0]["ifindex"]

    before = index()
    lab.recreate_link(border, "down0")
    assert index() != before
    lab.set_link(border, "up0", up=False)
    assert lab.run(border, "ping", "-c1", "-W1", str(RELAY.ipv4), check=False).returncode != 0
    lab.set_link(border, "up0", up=True)
    for target in (RELAY.ipv4, RELAY.ipv6):
        assert lab.run(border, "ping", "-c3", "-i0.2", "-W2", str(target)).returncode == 0
    assert lab.run(lab.topology.receiver(), "ping", "-c1", "-W2", str(BORDER.ipv4)).returncode == 0


def test_nothing_is_left_behind(make_lab):
    lab = make_lab()
    process = lab.start(lab.topology.border, "sleep", "1000")
    lab.delete()
    assert process.returncode is not None
    assert not list(NAMESPACE_DIRECTORY.glob(f"{lab.topology.prefix}-*"))


def test_the_leftovers_of_a_dead_process_are_removed(make_lab):
    lab = make_lab()
    abandoned = f"islabandoned{2**30}-source"  # no process id reaches that high
    lab.run(lab.topology.source, "ip", "netns", "add", abandoned)
    delete_abandoned("islabandoned")
    assert not (NAMESPACE_DIRECTORY / abandoned).exists()
    delete_abandoned("islt")
    assert (NAMESPACE_DIRECTORY / lab.topology.source).exists()


def test_failures_name_the_command(make_lab):
    lab = make_lab()
    with pytest.raises(LabError, match="nosuchlink"):
        lab.run(lab.topology.border, "ip", "link", "show", "nosuchlink")
