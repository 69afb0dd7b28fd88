"""What the simulated MX80 has committed, how it can go back, and the file that keeps it over a restart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lxml import etree

MOST_ROLLBACKS: Final = 50


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed configuration.

    Attributes:
        configuration: never changed after the commit.
        user, client: who, and by what (`netconf`, `cli`, `other`).
        at: seconds since 1970.
        comment: what the router adds, such as `commit confirmed, rollback in 5mins` (synthetic guess).
        log: what the user wrote.
    """

    configuration: etree._Element
    user: str
    client: str
    at: float
    comment: str = ""
    log: str = ""


class CommitHistory:
    """The committed configuration, up to 49 earlier ones, and an open confirm window.

    Attributes:
        commits: the committed one first.
        deadline: when an unconfirmed commit is taken back, seconds since 1970; None: no window is open.
        revision: grows with each commit since the start.
    """

    def __init__(self, first: Commit, state: Path | None = None) -> None:
        self.commits: list[Commit] = [first]
        self.deadline: float | None = None
        self.revision = 0
        self._state = state
        if state is not None and state.exists():
            self._load(json.loads(state.read_text(encoding="utf-8")))

    @property
    def committed(self) -> etree._Element:
        """What the router runs; not to be changed."""
        return self.commits[0].configuration

    def add(self, commit: Commit, deadline: float | None) -> None:
        """Commit; `deadline` opens a confirm window, any other commit closes one."""
        self.commits.insert(0, commit)
        self.revision += 1
        del self.commits[MOST_ROLLBACKS:]
        self.deadline = deadline
        self._save()

    def confirm(self) -> None:
        """Close an open confirm window."""
        if self.deadline is not None:
            self.deadline = None
            self._save()

    def revert(self) -> None:
        """Take the unconfirmed commit back: the one before it becomes a new commit at the deadline."""
        if self.deadline is None:
            return
        before = self.commits[min(1, len(self.commits) - 1)].configuration
        comment = "rollback of unconfirmed commit"  # synthetic guess
        self.add(Commit(before, "root", "other", self.deadline, comment), None)

    def _save(self) -> None:
        if self._state is None:
            return
        document = {
            "format": 1,
            "deadline": self.deadline,
            "commits": [
                {
                    "configuration": etree.tostring(one.configuration).decode(),
                    "user": one.user,
                    "client": one.client,
                    "at": one.at,
                    "comment": one.comment,
                    "log": one.log,
                }
                for one in self.commits
            ],
        }
        fresh = self._state.with_name(self._state.name + ".new")
        fresh.write_text(json.dumps(document), encoding="utf-8")
        fresh.replace(self._state)

    def _load(self, document: dict[str, Any]) -> None:
        if document.get("format") != 1:
            raise ValueError(f"{self._state}: not a state file of this program")
        self.deadline = document["deadline"]
        self.commits = [
            Commit(**{**one, "configuration": etree.fromstring(one["configuration"])}) for one in document["commits"]
        ]
