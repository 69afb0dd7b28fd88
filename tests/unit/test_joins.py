"""Static joins reach the tree, survive a restart and are refused when they make no sense."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.protocol.channels import Family, Filter
from agent.service.joins import StaticJoins
from agent.service.model import JoinOrigin, JoinRequest
from agent.service.port import RefusedError
from agent.tree import InterestKind, Owner, Tree

GROUP = ip_address("232.1.1.1")
SOURCE = ip_address("198.51.100.10")
SSM = JoinRequest(source=SOURCE, group=GROUP)
ASM = JoinRequest(source=None, group=ip_address("239.1.1.1"))


@pytest.fixture
def tree() -> Tree:
    return Tree(lambda _: "relay")


@pytest.fixture
def joins(tmp_path, tree) -> StaticJoins:
    return StaticJoins(tmp_path / "joins.journal", tree, ["lan0", "lan1"])


def interest(tree: Tree, interface: str, kind: InterestKind = InterestKind.API) -> Filter:
    return tree.interest(Owner(kind, interface), GROUP)


def test_a_join_without_interface_goes_to_every_downstream_interface(joins, tree):
    status, is_new = joins.add(SSM)
    assert is_new
    assert status.origin is JoinOrigin.API
    assert [interest(tree, name) for name in ("lan0", "lan1")] == [Filter.include([SOURCE])] * 2


def test_a_join_with_interface_goes_there_only(joins, tree):
    joins.add(JoinRequest(source=SOURCE, group=GROUP, interface="lan1"))
    assert interest(tree, "lan0").wants_nothing
    assert interest(tree, "lan1") == Filter.include([SOURCE])


def test_an_any_source_join_excludes_nothing(joins, tree):
    joins.add(ASM)
    assert tree.membership(ASM.group) == Filter.exclude()


def test_the_same_join_twice_is_one(joins):
    joins.add(SSM)
    _, is_new = joins.add(SSM)
    assert not is_new
    assert len(joins.rows()) == 1


def test_joins_of_the_api_survive_a_restart(tmp_path, joins):
    joins.add(SSM)
    joins.add(ASM)
    joins.remove(ASM)
    tree = Tree(lambda _: "relay")
    again = StaticJoins(tmp_path / "joins.journal", tree, ["lan0"])
    again.configure([], ["lan0"])
    assert [(row.source, row.group) for row in again.rows()] == [(SOURCE, GROUP)]
    assert interest(tree, "lan0") == Filter.include([SOURCE])


def test_a_torn_last_line_costs_that_line_only(tmp_path, joins):
    joins.add(SSM)
    with (tmp_path / "joins.journal").open("a") as file:
        file.write('{"action": "add", "jo')
    again = StaticJoins(tmp_path / "joins.journal", Tree(lambda _: "relay"), ["lan0"])
    assert len(again.rows()) == 1
    again.add(ASM)
    assert len(StaticJoins(tmp_path / "joins.journal", Tree(lambda _: "relay"), ["lan0"]).rows()) == 2


def test_a_configured_join_cannot_be_removed_through_the_api(joins, tree):
    joins.configure([SSM], ["lan0"])
    assert interest(tree, "lan0", InterestKind.STATIC) == Filter.include([SOURCE])
    with pytest.raises(RefusedError) as refused:
        joins.remove(SSM)
    assert refused.value.code == "join_is_configured"


def test_reconfiguring_withdraws_joins_and_interfaces_that_are_gone(joins, tree):
    joins.configure([SSM], ["lan0", "lan1"])
    joins.configure([SSM], ["lan1"])
    assert interest(tree, "lan0", InterestKind.STATIC).wants_nothing
    joins.configure([], ["lan1"])
    assert interest(tree, "lan1", InterestKind.STATIC).wants_nothing
    assert list(tree.groups()) == []


def test_removing_what_is_not_there_says_so(joins):
    assert not joins.remove(SSM)


@pytest.mark.parametrize(
    ("source", "group", "interface", "code"),
    [
        (None, "224.0.0.5", None, "invalid_channel"),
        (None, "232.1.1.1", None, "invalid_channel"),
        ("2001:db8::1", "232.1.1.1", None, "invalid_channel"),
        ("224.1.1.1", "232.1.1.1", None, "invalid_channel"),
        (None, "ff02::1", None, "invalid_channel"),
        ("198.51.100.10", "232.1.1.1", "eth9", "unknown_interface"),
    ],
)
def test_a_join_that_makes_no_sense_is_refused_and_changes_nothing(joins, tree, source, group, interface, code):
    with pytest.raises(RefusedError) as refused:
        joins.add(JoinRequest(source=source, group=group, interface=interface))
    assert refused.value.code == code
    assert joins.rows() == []
    assert list(tree.groups()) == []


def test_a_join_that_cannot_be_stored_is_refused(tmp_path, tree):
    joins = StaticJoins(tmp_path / "absent" / "joins.journal", tree, ["lan0"])
    with pytest.raises(RefusedError) as refused:
        joins.add(SSM)
    assert refused.value.code == "not_stored"
    assert joins.rows() == []


def test_the_journal_does_not_grow_with_joins_that_come_and_go(tmp_path, joins, monkeypatch):
    monkeypatch.setattr("agent.service.joins.JOURNAL_SLACK", 10)
    joins.add(ASM)
    for _ in range(50):
        joins.add(SSM)
        joins.remove(SSM)
    assert len((tmp_path / "joins.journal").read_text().splitlines()) < 20
    assert [row.group for row in reread(tmp_path).rows()] == [ASM.group]


def test_a_line_the_disk_took_half_of_costs_no_later_join(tmp_path, joins, monkeypatch):
    joins.add(SSM)

    def half(self, *_: object):
        self.write_text(self.read_text() + '{"action": "add", "jo')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", half_open(half))
        with pytest.raises(RefusedError):
            joins.add(ASM)
    joins.add(JoinRequest(source=None, group=ip_address("239.1.1.2")))
    assert [str(row.group) for row in reread(tmp_path).rows()] == ["232.1.1.1", "239.1.1.2"]


def half_open(write):
    """Path.open that fails half way when it appends."""
    original = Path.open

    def opened(self, mode="r", *arguments, **options):
        return write(self) if mode == "a" else original(self, mode, *arguments, **options)

    return opened


def test_a_stored_group_that_may_not_be_forwarded_is_skipped(tmp_path):
    bad = '{"action": "add", "join": {"source": null, "group": "224.0.0.5", "interface": null}}\n'
    (tmp_path / "joins.journal").write_text(bad)
    again = reread(tmp_path)
    again.configure([], ["lan0"])
    assert again.rows() == []


def test_a_family_that_is_switched_off_is_refused(tmp_path, tree):
    joins = StaticJoins(tmp_path / "joins.journal", tree, ["lan0"], (Family.IPV6,))
    with pytest.raises(RefusedError) as refused:
        joins.add(SSM)
    assert refused.value.code == "invalid_channel"


def test_joins_of_both_origins_are_counted(joins):
    joins.configure([SSM], ["lan0"])
    joins.add(ASM)
    assert len(joins) == len(joins.rows()) == 2


def reread(directory) -> StaticJoins:
    return StaticJoins(directory / "joins.journal", Tree(lambda _: "relay"), ["lan0"])
