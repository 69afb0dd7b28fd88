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
    print_text(diff, styled=True)


def print_text(text: str, *, styled: bool = False) -> None:
    """Print text of a device: on a terminal without what a terminal would obey, else as it is."""
    output = console()
    if not output.is_terminal:
        click.echo(text, nl=not text.endswith("\n"))
        return
    for line in text.rstrip("\n").split("\n"):
        safe = "".join(character if character.isprintable() else "�" for character in line.expandtabs(8))
        output.print(Text(safe, style=style_of(line) if styled else ""), soft_wrap=True)


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
