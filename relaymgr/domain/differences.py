"""Unified differences between configuration texts, for people."""

from __future__ import annotations

import difflib

from relaymgr.domain.masking import mask


def unified(
    before: str, after: str, *, before_name: str = "before", after_name: str = "after", context: int = 3
) -> str:
    """A unified difference; empty exactly when the texts' lines are equal.

    Secrets are masked after comparing, so that a changed secret shows as a change and not as itself.
    """
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), before_name, after_name, n=context, lineterm=""
    )
    text = "\n".join(mask(line) for line in lines)
    return text + "\n" if text else ""
