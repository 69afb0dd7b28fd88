"""Static joins: those of the configuration and those of the API, which are kept across restarts."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from agent.protocol.channels import Address, Family, Filter, is_forwardable_group, is_ssm_group, is_unicast
from agent.service.durable import replace_file
from agent.service.model import JoinOrigin, JoinRequest, JoinStatus
from agent.service.port import RefusedError
from agent.tree import InterestKind, Owner, Tree

_log = logging.getLogger(__name__)

JOIN_LIMIT: Final = 100_000

JOURNAL_SLACK: Final = 1000
"""Lines of the journal beyond twice the joins it holds; then it is written anew."""


class StaticJoins:
    """Joins as sets of channels per downstream interface, told to the tree as two owners an interface.

    Joins of the API are kept as a journal, a line a change, so that adding the ten-thousandth costs what the first did.
    """

    def __init__(
        self, path: Path, tree: Tree, downstream: Iterable[str], families: Collection[Family] = tuple(Family)
    ) -> None:
        """Read the joins of the API from the journal at `path`; damaged lines are skipped, and said so."""
        self._path = path
        self._tree = tree
        self._downstream = tuple(downstream)
        self._families = families
        self._lines = 0
        self._is_torn = False
        self._joins: dict[JoinOrigin, dict[Address, dict[JoinRequest, None]]] = {origin: {} for origin in JoinOrigin}
        stored = _read(path)
        for join in stored:
            self._joins[JoinOrigin.API].setdefault(join.group, {})[join] = None
        self._count = len(stored)
        self._rewrite()

    def __len__(self) -> int:
        return self._count + sum(len(joins) for joins in self._joins[JoinOrigin.CONFIGURATION].values())

    def rows(self) -> list[JoinStatus]:
        """Every join, those of the configuration first."""
        return [
            _status(join, origin)
            for origin, groups in self._joins.items()
            for joins in groups.values()
            for join in joins
        ]

    def configure(self, joins: Iterable[JoinRequest], downstream: Iterable[str]) -> None:
        """Replace the joins of the configuration and the interfaces that joins without one go to."""
        former, before = set(self._downstream), self._joins[JoinOrigin.CONFIGURATION]
        configured: dict[Address, dict[JoinRequest, None]] = {}
        for join in joins:
            configured.setdefault(join.group, {})[join] = None
        self._joins[JoinOrigin.CONFIGURATION] = configured
        self._downstream = tuple(downstream)
        for group in before.keys() | configured.keys() | self._joins[JoinOrigin.API].keys():
            self._tell(group, former)

    def add(self, join: JoinRequest) -> tuple[JoinStatus, bool]:
        """Add a join of the API; the flag tells whether it is new.

        Raises:
            RefusedError: not a channel that can be joined here, too many joins, or it cannot be stored.
        """
        self._check(join)
        for origin in JoinOrigin:
            if join in self._joins[origin].get(join.group, {}):
                return _status(join, origin), False
        if self._count >= JOIN_LIMIT:
            raise RefusedError("limit_reached", f"there are {JOIN_LIMIT} joins already")
        self._append("add", join)
        self._joins[JoinOrigin.API].setdefault(join.group, {})[join] = None
        self._count += 1
        self._tell(join.group)
        return _status(join, JoinOrigin.API), True

    def remove(self, join: JoinRequest) -> bool:
        """Remove a join of the API; False when there is none.

        Raises:
            RefusedError: the join belongs to the configuration, or the removal cannot be stored.
        """
        if join in self._joins[JoinOrigin.CONFIGURATION].get(join.group, {}):
            raise RefusedError("join_is_configured", "this join is in the configuration file; remove it there")
        joins = self._joins[JoinOrigin.API].get(join.group, {})
        if join not in joins:
            return False
        self._append("remove", join)
        del joins[join]
        if not joins:
            del self._joins[JoinOrigin.API][join.group]
        self._count -= 1
        self._tell(join.group)
        return True

    def _check(self, join: JoinRequest) -> None:
        if not is_forwardable_group(join.group):
            raise RefusedError("invalid_channel", f"{join.group} is not a group that may be forwarded")
        if join.source is None and is_ssm_group(join.group):
            raise RefusedError("invalid_channel", f"{join.group} is source-specific (RFC 4607): it needs a source")
        if join.source is not None and (join.source.version != join.group.version or not is_unicast(join.source)):
            raise RefusedError("invalid_channel", f"{join.source} cannot be a source of {join.group}")
        if Family.of(join.group) not in self._families:
            raise RefusedError("invalid_channel", f"IPv{join.group.version} multicast is not carried here")
        if join.interface is not None and join.interface not in self._downstream:
            raise RefusedError("unknown_interface", f"{join.interface} is not a downstream interface")

    def _tell(self, group: Address, former: Iterable[str] = ()) -> None:
        """Tell the tree what each origin wants of a group on each interface."""
        for origin, kind in ((JoinOrigin.CONFIGURATION, InterestKind.STATIC), (JoinOrigin.API, InterestKind.API)):
            joins = self._joins[origin].get(group, {})
            for interface in {*self._downstream, *former}:
                here = {
                    join.source
                    for join in joins
                    if interface in self._downstream and join.interface in {None, interface}
                }
                wanted = Filter.exclude() if None in here else Filter.include(s for s in here if s is not None)
                self._tree.set_interest(Owner(kind, interface), group, wanted)

    def _append(self, action: str, join: JoinRequest) -> None:
        if self._lines > 2 * self._count + JOURNAL_SLACK:
            self._rewrite()
        line = ("\n" if self._is_torn else "") + _line(action, join)
        self._is_torn = True  # until all of the line is there
        try:
            with self._path.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RefusedError("not_stored", f"{self._path} cannot be written: {error.strerror}") from error
        self._is_torn = False
        self._lines += 1

    def _rewrite(self) -> None:
        """Start the journal afresh with what is left of it."""
        lines = [_line("add", join) for joins in self._joins[JoinOrigin.API].values() for join in joins]
        self._is_torn = True  # whatever became of its last line
        try:
            replace_file(self._path, "".join(lines).encode())
        except OSError as error:
            _log.warning("journal of joins not rewritten: %s", error)
            self._lines = 0  # tried again after as many changes
        else:
            self._is_torn = False
            self._lines = len(lines)


def _status(join: JoinRequest, origin: JoinOrigin) -> JoinStatus:
    return JoinStatus(source=join.source, group=join.group, interface=join.interface, origin=origin)


def _line(action: str, join: JoinRequest) -> str:
    return json.dumps({"action": action, "join": join.model_dump(mode="json")}) + "\n"


def _read(path: Path) -> list[JoinRequest]:
    joins: dict[JoinRequest, None] = {}
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        _log.warning("stored joins are not readable: %s", error)
        return []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            entry = json.loads(line)
            join = JoinRequest.model_validate_json(json.dumps(entry["join"]))
            action = entry["action"]
            if not is_forwardable_group(join.group):
                raise ValueError(f"{join.group} is not a group that may be forwarded")  # noqa: TRY301 - one place skips
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("stored join skipped line=%d: %s", number, error)
            continue
        if action == "add":
            joins[join] = None
        else:
            joins.pop(join, None)
    return list(joins)
