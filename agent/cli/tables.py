"""Tables for people: units and ages in words, cut to the terminal, whole when written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 240  # columns of a table that goes to a file or a pipe


def console() -> Console:
    """Standard output."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDE)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """A table; headers that start with `>` are of numbers. `empty` is said instead of a table without rows."""
    output = console()
    if not rows:
        output.print(empty)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header.removeprefix(">"), justify="right" if header.startswith(">") else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if output.is_terminal:
        output.print(table)
        return
    with output.capture() as captured:
        output.print(table)
    lines = (line.rstrip() for line in captured.get().splitlines())
    click.echo("\n".join(line for line in lines if line))


def print_pairs(pairs: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    output = console()
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        output.print(Text(f"{name:<{width}}", style="bold").append(_cell(value)), soft_wrap=True)


def _cell(value: object) -> Text:
    """A value as it is: addresses in brackets are no markup."""
    return Text("-" if value is None or value == "" else str(value))


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
    return age(max(0.0, (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()))


def count(value: int) -> str:
    """1 234 567 with separators."""
    return f"{value:,}".replace(",", " ")


def size(value: int) -> str:
    """Bytes in decimal units."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} PB"


def endpoint(address: str | None, port: Any) -> str | None:  # noqa: ANN401 JSON
    """Address and port in the usual form."""
    if address is None:
        return None
    host = f"[{address}]" if ":" in address else address
    return host if port is None else f"{host}:{port}"
