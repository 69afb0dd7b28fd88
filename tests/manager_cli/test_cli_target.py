"""Which manager is meant, which token goes to it, and how files that hold tokens are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from manager_cli.running_manager import RunningManager

from relaymgr.cli.failure import Failure
from relaymgr.cli.profiles import Profile, Profiles, profile_path, read_profiles, write_profiles
from relaymgr.cli.target import Connection, Target, find_target, known_target, read_token

URL = "https://relaymgr.example.net"


def keep(**profiles: Profile) -> None:
    write_profiles(profile_path(), Profiles(next(iter(profiles)), dict(profiles)))


def test_profiles_are_written_for_their_owner_alone() -> None:
    keep(noc=Profile(URL, 'to"ken\\', Path("/etc/ssl/noc.pem")), lab=Profile("http://127.0.0.1:1"))
    assert profile_path().stat().st_mode & 0o777 == 0o600
    found = read_profiles(profile_path())
    assert found.current == "noc"
    assert found.by_name["noc"] == Profile(URL, 'to"ken\\', Path("/etc/ssl/noc.pem"))
    assert 'to"ken' not in repr(found)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_profiles_others_may_use_are_refused(mode: int, relaymgr: Any) -> None:
    keep(noc=Profile(URL, "secret-token"))
    profile_path().chmod(mode)
    told = relaymgr("ad", "list", status=2).stderr
    assert "chmod 600" in told
    assert "secret-token" not in told


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_profiles_of_somebody_else_are_refused() -> None:
    keep(noc=Profile(URL))
    os.chown(profile_path(), 65534, 65534)
    if os.geteuid() == 0:
        with pytest.raises(Failure, match="another user"):
            read_profiles(profile_path())


@pytest.mark.parametrize(
    "text",
    [
        "[profiles.noc]\n",
        "other = 1\n",
        "[profiles.noc]\nurl = 'https://a'\nsecret = 'x'\n",
        "not toml",
        "current = 1\n",
    ],
)
def test_profiles_that_are_none_are_refused(text: str) -> None:
    profile_path().write_text(text)
    profile_path().chmod(0o600)
    with pytest.raises(Failure):
        read_profiles(profile_path())


def test_nothing_names_a_manager(relaymgr: Any) -> None:
    assert known_target(Connection()) is None
    assert "which manager?" in relaymgr("ad", "list", status=2).stderr


def test_flags_come_before_environment_before_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keep(noc=Profile(URL, "of-profile"), lab=Profile("https://lab.example.net", "of-lab"))
    assert find_target(Connection()) == Target(URL, "of-profile")
    assert find_target(Connection(profile="lab")) == Target("https://lab.example.net", "of-lab")
    monkeypatch.setenv("ISTHMUS_PROFILE", "lab")
    assert find_target(Connection()).token == "of-lab"
    monkeypatch.setenv("ISTHMUS_URL", "https://env.example.net")
    monkeypatch.setenv("ISTHMUS_TOKEN", "of-environment")
    assert find_target(Connection()) == Target("https://env.example.net", "of-environment")
    assert find_target(Connection(profile="noc")) == Target(URL, "of-profile")
    file = tmp_path / "token"
    file.write_text("of-file\n")
    file.chmod(0o600)
    assert find_target(Connection(token_file=file)).token == "of-file"
    assert find_target(Connection(profile="noc", token_file=file)) == Target(URL, "of-file")


def test_token_stays_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(noc=Profile(URL, "of-profile"), open=Profile("https://open.example.net"))
    assert find_target(Connection(url="https://evil.example.net")).token is None
    assert find_target(Connection(url="https://evil.example.net", profile="noc")).token is None
    assert find_target(Connection(url=URL + "/")).token == "of-profile"
    monkeypatch.setenv("ISTHMUS_URL", "https://env.example.net")
    monkeypatch.setenv("ISTHMUS_TOKEN", "of-environment")
    assert find_target(Connection(url="https://evil.example.net")).token is None
    assert find_target(Connection(profile="open")).token is None


@pytest.mark.parametrize("url", ["relaymgr.example.net", "ftp://a", "https://u:hunter2@a", "https://a?x=1", "https://"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(Failure) as refused:
        find_target(Connection(url=url))
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize("text", ["", "two words", "a\nb", "töken"])
def test_token_files_that_are_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    with pytest.raises(Failure) as refused:
        read_token(file)
    assert not text or text not in refused.value.message


def test_token_file_everybody_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("token")
    file.chmod(0o644)
    with pytest.raises(Failure, match="chmod 600"):
        read_token(file)


def test_token_over_clear_text_is_warned_of() -> None:
    assert Target("http://relaymgr.example.net", "token").in_clear
    assert not Target("http://127.0.0.1:8080", "token").in_clear
    assert not Target(URL, "token").in_clear


def test_profile_commands(manager: RunningManager, relaymgr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISTHMUS_URL")
    monkeypatch.delenv("ISTHMUS_TOKEN")
    made = relaymgr("profile", "set", "noc", "--url", manager.url, "--token-file", "-", input=manager.token)
    assert "knows you as token:test, admin" in made.stdout
    assert manager.token not in made.output
    relaymgr("ad", "list")
    shown = relaymgr("profile", "show")
    assert manager.token not in shown.output + relaymgr("profile", "list").output + str(
        relaymgr.json("profile", "list")
    )
    refused = relaymgr("profile", "set", "bad", "--url", manager.url, "--token-file", "-", input="ist_x", status=1)
    assert "unauthorized" in refused.stderr
    relaymgr("profile", "set", "other", "--url", URL, "--no-token")
    relaymgr("profile", "use", "other")
    assert [row["name"] for row in relaymgr.json("profile", "list")["items"] if row["current"]] == ["other"]
    relaymgr("profile", "delete", "other")
    assert "no profile other" in relaymgr("profile", "use", "other", status=2).stderr
    relaymgr("profile", "set", "a.b", "--url", URL, "--no-token", status=2)
