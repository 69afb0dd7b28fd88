"""Writes the vectors of forwarding: `PYTHONPATH=tests:. python -m vectors.forwarding_make`.

The rules are in the modules of `vectors.forwarding`, each row with the section it comes from. They are written from the
RFCs and from what this product says of itself, never from an engine; a test holds the files and the rules together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from vectors.forwarding import around, inner, options
from vectors.forwarding.case import Case, read, write
from vectors.forwarding.world import settings

DIRECTORY = Path(__file__).parent / "forwarding"

HEAD = """\
# What every forwarding engine of the gateway has to do, octet by octet; tests/vectors/forwarding_make.py writes it from
# the rules in tests/vectors/forwarding. How to read a vector: case.py there.
#
"""

FILES: dict[str, Callable[[], Iterator[Case]]] = {
    "plain": lambda: inner.cases(options.unmarked()),
    "sizes": lambda: inner.cases(inner.sizes()),
    "replication": lambda: inner.cases(inner.replication()),
    "hops": lambda: inner.cases(inner.hops()),
    "flags": lambda: inner.cases(inner.flags()),
    "transport": lambda: inner.cases(inner.transport()),
    "fragments": lambda: inner.cases(inner.pieces()),
    "addresses": lambda: inner.cases(inner.addresses()),
    "broken": lambda: inner.cases(inner.broken()),
    "options": lambda: inner.cases(chain(options.ipv4_options(), options.ipv6_extensions())),
    "marks": around.marks,
    "amt": around.amt,
    "strangers": around.strangers,
    "outer": lambda: chain(around.outer_headers(), around.sums_and_lengths()),
    "ethernet": around.ethernet,
}


def text(name: str) -> str:
    """What the file of that name holds."""
    lines = [f"# {line}" for line in settings()]
    for case in FILES[name]():
        lines += ["", *write(case)[:-1]]
    return HEAD + "\n".join(lines) + "\n"


def load() -> list[Case]:
    """All vectors, as the files have them."""
    return [case for name in FILES for case in read((DIRECTORY / f"{name}.txt").read_text(encoding="utf-8"))]


def main() -> None:
    """Write all files."""
    for name in FILES:
        (DIRECTORY / f"{name}.txt").write_text(text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
