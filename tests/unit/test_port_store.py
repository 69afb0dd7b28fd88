"""Tunnel ports survive a restart, and a damaged file never stops the agent."""

import pytest

from agent.service.port_store import PortStore


def test_a_port_is_found_again_by_another_process(tmp_path):
    PortStore(tmp_path / "ports.json").put("192.0.2.1", 40001)
    assert PortStore(tmp_path / "ports.json").get("192.0.2.1") == 40001


def test_an_unknown_tunnel_has_no_port(tmp_path):
    assert PortStore(tmp_path / "ports.json").get("192.0.2.1") == 0


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"192.0.2.1": "x"}', '{"192.0.2.1": 70000}', "\0\0"])
def test_a_damaged_file_is_an_empty_store(tmp_path, content):
    (tmp_path / "ports.json").write_text(content)
    store = PortStore(tmp_path / "ports.json")
    assert store.get("192.0.2.1") == 0
    store.put("192.0.2.1", 40002)
    assert PortStore(tmp_path / "ports.json").get("192.0.2.1") == 40002


def test_a_port_that_cannot_be_written_is_still_known_to_this_process(tmp_path):
    store = PortStore(tmp_path / "absent" / "ports.json")
    store.put("192.0.2.1", 40003)
    assert store.get("192.0.2.1") == 40003


def test_the_oldest_of_very_many_tunnels_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr("agent.service.port_store._LIMIT", 3)
    store = PortStore(tmp_path / "ports.json")
    for number in range(1, 6):
        store.put(f"relay{number}", 1000 + number)
    assert [store.get(f"relay{number}") for number in range(1, 6)] == [0, 0, 1003, 1004, 1005]
