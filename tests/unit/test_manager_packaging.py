"""The units of the relay manager and its file of settings."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from relaymgr.cli import main
from relaymgr.settings import Settings

PACKAGING = Path(__file__).parents[2] / "packaging"
UNITS = {"relaymgr.service": "serve", "relaymgr-worker.service": "worker"}


def read(name):
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(PACKAGING / name)
    return parser


@pytest.mark.parametrize(("name", "command"), UNITS.items())
def test_a_unit_runs_a_command_there_is_as_a_user_without_capabilities(name, command):
    service = read(name)["Service"]
    assert service["ExecStart"] == f"/usr/local/bin/relaymgr {command}"
    assert command in main.commands
    assert service["User"] == (PACKAGING / "relaymgr.sysusers").read_text().split()[1]
    assert service["CapabilityBoundingSet"] == ""
    assert service["NoNewPrivileges"] == "yes"
    assert service["EnvironmentFile"] == "/etc/relaymgr/relaymgr.env"


def test_the_database_lies_in_the_state_directory():
    service = read("relaymgr.service")["Service"]
    assert service["Environment"].endswith(f":////var/lib/{service['StateDirectory']}/relaymgr.db")


def test_every_setting_in_the_example_is_one_of_the_manager(monkeypatch):
    lines = re.findall(r"^#?(ISTHMUS_[A-Z0-9_]+)=(.*)$", (PACKAGING / "relaymgr.env").read_text(), re.MULTILINE)
    known = {f"ISTHMUS_{name.upper()}" for name in Settings.model_fields}
    named = [name for name, _ in lines if not name.removeprefix("ISTHMUS_").startswith("CREDENTIAL_MX80")]
    assert len(named) > 10
    assert set(named) <= known
    for name, value in lines:
        monkeypatch.setenv(name, value)
    Settings()


@pytest.fixture(params=UNITS)
def unit_here(request, tmp_path):
    """A unit with programs and a user this machine has."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    text = (PACKAGING / request.param).read_text()
    copy = tmp_path / request.param
    copy.write_text(
        text.replace("/usr/local/bin/relaymgr", "/bin/true").replace("=relaymgr\nGroup=relaymgr", "=daemon")
    )
    return copy


def test_systemd_accepts_the_units(unit_here):
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit_here)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if unit_here.name in line] == []


def test_systemd_finds_the_sandbox_tight(unit_here):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(unit_here)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze is too old for --offline")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
