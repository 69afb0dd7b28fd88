"""What a commit checks beyond the syntax: mandatory statements and references."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from lab.sim.mx80.merge import LoadProblem, edit_path, words_of
from lab.sim.mx80.schema import root
from lab.sim.mx80.selection import active, all_active

_POLICY_USERS = (
    "protocols/bgp",
    "protocols/bgp/group",
    "protocols/bgp/group/neighbor",
    "protocols/ospf",
    "protocols/isis",
    "protocols/igmp/amt/relay/defaults",
    "protocols/igmp/interface",
)
_POLICY_LEAVES = ("export", "import", "group-policy", "ssm-map-policy")


def check(tree: etree._Element) -> list[LoadProblem]:
    """What keeps `tree` from being committed."""
    return [*_mandatory(tree), *_policies(tree), *_filters(tree), *_loopbacks(tree)]


def _mandatory(tree: etree._Element) -> Iterator[LoadProblem]:
    if active(tree, "system/root-authentication") is None:
        yield LoadProblem("[edit system]", "Missing mandatory statement: 'root-authentication'", "root-authentication")


def _policies(tree: etree._Element) -> Iterator[LoadProblem]:
    defined = {element.findtext("name") for element in all_active(tree, "policy-options/policy-statement")}
    for path in _POLICY_USERS:
        for user in all_active(tree, path):
            for leaf in _POLICY_LEAVES:
                for reference in user.findall(leaf):
                    if reference.text not in defined:
                        where = edit_path((*_words(user), leaf))
                        message = f"Policy error: Policy {reference.text} referenced but not defined"
                        yield LoadProblem(where, message, str(reference.text))


def _filters(tree: etree._Element) -> Iterator[LoadProblem]:
    defined = {
        element.findtext("name")
        for path in ("firewall/filter", "firewall/family/inet/filter")
        for element in all_active(tree, path)
    }
    for attached in all_active(tree, "interfaces/interface/unit/family/inet/filter"):
        for direction in ("input", "output"):
            name = attached.findtext(f"{direction}/filter-name")
            if name is not None and name not in defined:
                yield LoadProblem(edit_path(_words(attached)), f"Referenced filter '{name}' is not defined", name)
    lists = {element.findtext("name") for element in all_active(tree, "policy-options/prefix-list")}
    for source in all_active(tree, "firewall/family/inet/filter/term/from"):
        for leaf in ("source-prefix-list", "destination-prefix-list", "prefix-list"):
            for reference in source.findall(leaf):
                name = reference.findtext("name")
                if name not in lists:
                    where = edit_path((*_words(source), leaf))
                    yield LoadProblem(where, f"Referenced prefix-list '{name}' is not defined", str(name))


def _loopbacks(tree: etree._Element) -> Iterator[LoadProblem]:
    """One unit of lo0 for each routing instance."""
    elsewhere = {
        interface.findtext("name"): instance.findtext("name")
        for instance in all_active(tree, "routing-instances/instance")
        for interface in instance.findall("interface")
    }
    taken: set[str | None] = set()
    for unit in all_active(tree, "interfaces/interface/unit"):
        parent = unit.getparent()
        if parent is None or parent.findtext("name") != "lo0":
            continue
        instance = elsewhere.get(f"lo0.{unit.findtext('name')}")
        if instance in taken:
            where = f"routing instance {instance}" if instance else "master routing instance"
            message = f"Multiple loopback interfaces not permitted in {where}"
            yield LoadProblem(edit_path(_words(parent)), message, f"unit {unit.findtext('name')}")
        taken.add(instance)


def _words(element: etree._Element) -> tuple[str, ...]:
    """The path of an element of a whole configuration."""
    line = [element, *element.iterancestors()][::-1]
    node = root()
    words: tuple[str, ...] = ()
    for one in line[1:]:
        below = node.child(str(one.tag))
        assert below is not None
        node = below
        words = (*words, *words_of(one, node))
    return words
