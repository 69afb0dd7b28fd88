"""Diffs as people read them: additions green, removals red, places cyan. Plain text when not on a terminal."""

from __future__ import annotations

import click
from rich.text import Text

from relaymgr.cli.output import console


def print_diff(diff: str, empty: str = "no difference") -> None:
    """Print a diff in a device's or in unified notation; `empty` is said for one without content."""
    if not diff.strip():
        click.echo(empty)
        return
    output = console()
    for line in diff.rstrip("\n").splitlines():
        text = line.expandtabs(4)
        safe = "".join(character if character.isprintable() else "�" for character in text)
        if output.is_terminal:
            output.print(Text(safe, style=style_of(line)), soft_wrap=True)
        else:
            click.echo(safe)


def style_of(line: str) -> str:
    """The style of a line of a diff, by its first characters."""
    word = line.lstrip()
    if word.startswith(("[edit", "@@", "---", "+++", "!")):
        return "bold cyan"
    if word.startswith("+"):
        return "green"
    if word.startswith("-"):
        return "red"
    return ""
