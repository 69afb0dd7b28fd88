"""Reading a running configuration. The texts are synthetic, made after public examples."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from relaymgr.drivers.iosxe import running_config


@pytest.mark.parametrize("clock", ["23:59:60", "25:61:99"])
def test_a_time_that_is_none_leaves_the_user(clock):
    said = running_config.last_change(f"! Last configuration change at {clock} UTC Sat Dec 31 2016 by alice\n")
    assert said is not None
    assert (said.user, said.at) == ("alice", None)


TEXT = """Building configuration...

Current configuration : 1234 bytes
!
! Last configuration change at 12:34:56 UTC Mon Nov 23 2026 by alice
!
banner motd ^C
interface Tunnel2268
 ip address 1.2.3.4 255.255.255.0
^C
interface Loopback2268
 description local
 ip address 198.51.100.7 255.255.255.255
 ip address 198.51.100.8 255.255.255.255 secondary
!
interface Tunnel2268
 no ip address
 ip pim sparse-mode
 ip igmp version 3
 ip ospf message-digest-key 1 md5 7 synthetic
!
interface Tunnel22680
 ip address 10.0.0.1 255.255.255.0
!
ip access-list extended G
 10 permit ip any   232.0.0.0 0.255.255.255
 20 deny   ip any any
ip prefix-list P seq 5 permit 192.0.2.0/24
ip prefix-list PP seq 5 permit 10.0.0.0/8
ntp clock-period 17208943
end
"""


def owned(*scope: str) -> str:
    return running_config.owned(TEXT, scope).text


def test_a_section_is_owned_with_everything_below_but_defaults_and_secrets():
    assert owned("interface Tunnel2268") == "interface Tunnel2268\n ip pim sparse-mode\n ip igmp version 3\n"


def test_single_lines_of_a_section_are_owned_and_never_secondary_addresses():
    assert owned("interface Loopback2268 > ip address") == (
        "interface Loopback2268\n ip address 198.51.100.7 255.255.255.255\n"
    )


def test_a_section_without_the_owned_line_is_absent():
    assert owned("interface Loopback2268 > ip pim") == ""


def test_access_lists_keep_their_order_without_numbers():
    assert owned("ip access-list extended G") == (
        "ip access-list extended G\n permit ip any 232.0.0.0 0.255.255.255\n deny ip any any\n"
    )


def test_scope_is_matched_by_whole_words():
    assert owned("ip prefix-list P") == "ip prefix-list P seq 5 permit 192.0.2.0/24\n"


def test_a_banner_is_no_configuration():
    assert running_config.sections(TEXT)["interface Tunnel2268"][0] == "no ip address"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("12:34:56 UTC Mon Nov 23 2026 by alice", "13:00:00 UTC Mon Nov 23 2026 by bob"),
        ("clock-period 17208943", "clock-period 17208944"),
        ("configuration : 1234 bytes", "configuration : 1235 bytes"),
    ],
)
def test_what_changes_by_itself_is_not_in_the_fingerprint(old, new):
    assert running_config.fingerprint(TEXT.replace(old, new)) == running_config.fingerprint(TEXT)


def test_everything_else_is_in_the_fingerprint():
    changed = TEXT.replace("description local", "description other")
    assert running_config.fingerprint(changed) != running_config.fingerprint(TEXT)


def test_who_changed_it_last():
    record = running_config.last_change(TEXT)
    assert record is not None
    assert record.user == "alice"
    assert record.at == datetime(2026, 11, 23, 12, 34, 56, tzinfo=UTC)
    local = running_config.last_change(TEXT.replace(" UTC ", " CET "))
    assert local is not None
    assert local.at is None


def test_the_archive_is_found_or_not():
    assert running_config.archive_path(TEXT) is None
    assert running_config.archive_path("archive\n path bootflash:a\n maximum 5\n") == "bootflash:a"
    assert running_config.archive_path("archive\n log config\n  hidekeys\n") is None
