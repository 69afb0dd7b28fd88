"""What people read: tables, pairs, ages; and JSON for programs. Unknown is `-`, never 0."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE: Final = 240  # columns of a table that goes to a file or a pipe
_STYLES: Final = {
    "succeeded": "green",
    "reachable": "green",
    "active": "green",
    "ok": "green",
    "none": "green",
    "running": "cyan",
    "pending": "cyan",
    "queued": "cyan",
    "paused": "yellow",
    "warning": "yellow",
    "drifted": "yellow",
    "unmanaged": "yellow",
    "rolled_back": "red",
    "failed": "red",
    "aborted": "red",
    "uncertain": "bold red",
    "unreachable": "red",
    "down": "red",
    "critical": "bold red",
}

Cell = object
Row = Sequence[Cell]


def console(*, error: bool = False) -> Console:
    """Standard output, or standard error."""
    found = Console(highlight=False, stderr=error)
    return found if found.is_terminal else Console(highlight=False, stderr=error, width=_WIDE)


def print_json(document: object) -> None:
    """Print a document for programs."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(headers: Sequence[str], rows: Sequence[Row], empty: str) -> None:
    """A table; headers that start with `>` are of numbers. `empty` is said instead of a table without rows."""
    output = console()
    if not rows:
        click.echo(empty)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header.removeprefix(">"), justify="right" if header.startswith(">") else "left")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    if output.is_terminal:
        output.print(table)
        return
    with output.capture() as captured:
        output.print(table)
    lines = (line.rstrip() for line in captured.get().splitlines())
    click.echo("\n".join(line for line in lines if line))


def print_listing(listing: Mapping[str, Any], headers: Sequence[str], rows: Sequence[Row], empty: str) -> None:
    """A table, and a word on standard error when there is more than it shows."""
    print_table(headers, rows, empty)
    if listing["next_cursor"] is not None:
        click.echo(f"… more than these {len(rows)}: use --all, or a greater --limit", err=True)


def print_pairs(pairs: Sequence[tuple[str, Cell]]) -> None:
    """Names and values, one a line."""
    output = console()
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        output.print(Text(f"{name:<{width}}", style="bold").append_text(cell(value)), soft_wrap=True)


def cell(value: Cell) -> Text:
    """A value as it is (brackets of addresses are no markup); states in their colour; unknown as a dash."""
    if isinstance(value, Text):
        return value
    if value is None or value == "":
        return Text("-")
    text = str(value)
    return Text("".join(c if c.isprintable() or c == "\n" else "�" for c in text), style=_STYLES.get(text, ""))


def age(seconds: float | None) -> str | None:
    """3.2s, 4m10s, 2h05m, 3d04h."""
    if seconds is None:
        return None
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def since(moment: str | None) -> str | None:
    """Age of a time of the API."""
    if moment is None:
        return None
    return age(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))


def until(moment: str | None) -> str | None:
    """Time left to a time of the API."""
    if moment is None:
        return None
    left = (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
    return "over" if left <= 0 else age(left)


def at(moment: str | None) -> str | None:
    """A time of the API in the terminal's zone, to the second."""
    return None if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def count(value: float | None) -> str | None:
    """1 234 567 with separators."""
    return None if value is None else f"{value:,.0f}".replace(",", " ")


def rate(value: float | None, unit: str) -> str | None:
    """12.5 unit."""
    return None if value is None else f"{value:,.1f} {unit}".replace(",", " ")


def size(value: int | None) -> str | None:
    """Bytes in decimal units."""
    if value is None:
        return None
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} PB"


def endpoint(address: str | None, port: int | None) -> str | None:
    """Address and port in the usual form."""
    if address is None:
        return None
    host = f"[{address}]" if ":" in address else address
    return host if port is None else f"{host}:{port}"


def words(values: Sequence[object] | None) -> str | None:
    """Values side by side."""
    return None if not values else ", ".join(str(value) for value in values)


def flag(value: bool | None) -> str | None:
    """yes, no, or unknown."""
    return None if value is None else "yes" if value else "no"
