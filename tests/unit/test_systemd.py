"""What systemd is told."""

import os
import socket

import pytest

from agent.service.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = f"{tmp_path}/notify" if request.param == "path" else f"\0isthmus-test-{os.getpid()}"
    receiver.bind(name)
    receiver.settimeout(30)
    yield receiver, name.replace("\0", "@")
    receiver.close()


def told(receiver):
    return dict(line.split("=", 1) for line in receiver.recv(4096).decode().splitlines())


def test_each_state_is_told(manager):
    receiver, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    assert told(receiver)["READY"] == "1"
    notifier.reloading()
    message = told(receiver)
    assert message["RELOADING"] == "1"
    assert int(message["MONOTONIC_USEC"]) > 0
    notifier.stopping()
    assert told(receiver)["STOPPING"] == "1"
    notifier.status("two\nlines")
    assert told(receiver) == {"STATUS": "two lines"}
    notifier.close()


def test_the_watchdog_is_petted_at_half_its_time(manager):
    receiver, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
    assert notifier.watchdog_interval == 15
    notifier.watchdog()
    assert told(receiver) == {"WATCHDOG": "1"}
    notifier.close()


def test_a_watchdog_of_another_process_is_not_ours(manager):
    _, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"})
    assert notifier.watchdog_interval is None
    notifier.close()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:3"}])
def test_without_systemd_nothing_happens(environment):
    notifier = Notifier(environment | {"WATCHDOG_USEC": "1000000"})
    notifier.ready()
    notifier.watchdog()
    assert notifier.watchdog_interval is None


def test_a_manager_that_went_away_does_no_harm(tmp_path):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    notifier.close()
    notifier.ready()
