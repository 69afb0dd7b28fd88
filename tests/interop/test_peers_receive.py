"""Receivers nobody adapted to us, iperf 2 and ffmpeg, get whole streams through relay and agent."""

from __future__ import annotations

import re
import shutil
import subprocess
from ipaddress import ip_address

import pytest

from lab import video
from lab.namespaces import stop, wait_until
from lab.topology import HOST_INTERFACE, PAYLOAD_PORT, SOURCE, SSM_GROUP_IPV4, SSM_GROUP_IPV6

pytestmark = [pytest.mark.root, pytest.mark.slow]


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs the program {program}")


def iperf_verdict(server):
    """Lost and total datagrams of the first stream an iperf server reports on."""
    for line in server.stdout:
        if found := re.search(r"(\d+)/(\d+) \(", line):
            return int(found[1]), int(found[2])
    raise AssertionError("iperf ended without a report")


@needs("iperf")
@pytest.mark.parametrize(("group", "version"), [(SSM_GROUP_IPV4, 4), (SSM_GROUP_IPV6, 6)], ids=["IPv4", "IPv6"])
def test_iperf_loses_nothing(make_scenario, group, version):
    scenario = make_scenario()
    lab, names = scenario.lab, scenario.lab.topology
    common = ["-u", "-p", str(PAYLOAD_PORT), "-i", "0", *(["-V"] if version == 6 else [])]
    joined = ["-B", f"{group}%{HOST_INTERFACE}", "-H", str(SOURCE.of(version))]
    server = lab.start(names.receiver(), "stdbuf", "-oL", "iperf", "-s", *common, *joined, stdout=subprocess.PIPE)
    wait_until(lambda: any(row["group"] == group for row in scenario.relay.channels()), 15.0, "the relay is subscribed")
    sent = lab.run(names.source, "iperf", "-c", group, *common, "-T", "16", "-b", "4M", "-l", "1316", "-t", "4").stdout
    lost, total = iperf_verdict(server)
    assert lost == 0
    assert total >= int(re.search(r"Sent (\d+) datagrams", sent)[1]) - 1  # its last datagram only ends the test


@needs("ffmpeg")
def test_ffmpeg_shows_an_undamaged_picture(make_scenario, tmp_path):
    scenario = make_scenario()
    lab, names = scenario.lab, scenario.lab.topology
    group, frame = ip_address(SSM_GROUP_IPV4), tmp_path / "frame.png"
    log = tmp_path / "receiver.log"
    with (tmp_path / "source.log").open("w") as source_log, log.open("w") as receiver_log:
        source = video.start_source(lab, group, SOURCE.ipv4, source_log)
        local = names.receiver_address().ipv4
        receiver = video.start_receiver(lab, names.receiver(), SOURCE.ipv4, group, local, frame, receiver_log)
        wait_until(lambda: video.decodes(frame), 25.0, "ffmpeg has written a frame", interval=0.5)
        counting = scenario.receive(SSM_GROUP_IPV4)
        counting.wait_for_more(15.0, packets=2000)
        figures = counting.finish()
        stop(receiver)
        stop(source)
    assert (figures["continuity_errors"], video.damage(log.read_text())) == (0, 0)
