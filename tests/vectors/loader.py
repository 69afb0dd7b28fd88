"""Reads the wire vectors beside this file.

A vector starts with `== name ==`. Then, at the beginning of a line:

    rfc TEXT            the section the bytes come from
    decode DECODER      amt (a UDP payload), group (an IP packet with IGMP or MLD), pim (an IP packet with PIM), ip, or
                        udp (an IP packet with UDP)
    decode-only REASON  an encoder never writes these bytes
    hex                 followed by indented lines: bytes, two spaces, what they are; or `@name`, another vector's bytes
    expect TYPE         followed by indented lines: field and value; several values are separated by spaces
    error CLASS         the WireError to be raised
    tshark              followed by indented lines: tshark's field and what it shows

Lines that begin with # are comments. Nothing in here uses the codecs: what a vector means is decided by its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

DIRECTORY = Path(__file__).parent
BYTES = re.compile(r"((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:\s{2,}.*)?$")


@dataclass
class Vector:
    """One vector; `lines` are its bytes as written, resolved by `load_vectors` into `data`."""

    name: str
    file: str
    rfc: str = ""
    decoder: str = ""
    decode_only: str = ""
    expect: str = ""
    error: str = ""
    data: bytes = b""
    lines: list[str] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)
    tshark: list[tuple[str, str]] = field(default_factory=list)

    def value(self, name: str) -> str:
        """Value of a field that stands there once."""
        (value,) = [value for key, value in self.fields if key == name]
        return value

    def values(self, name: str) -> list[str]:
        """Values of a field that may be repeated."""
        return [value for key, value in self.fields if key == name]


def parse(text: str, file: str) -> list[Vector]:
    """Vectors of one file, bytes not yet resolved."""
    vectors: list[Vector] = []
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{file}:{number}"
        if not line.strip() or line.startswith("#"):
            continue
        if title := re.fullmatch(r"== (\S+) ==", line):
            vectors.append(Vector(title[1], file))
            section = ""
        elif line.startswith("  "):
            _take_indented(vectors[-1], section, line.strip(), place)
        else:
            section, _, value = line.partition(" ")
            _take_word(vectors[-1], section, value.strip(), place)
    return vectors


def _take_word(vector: Vector, word: str, value: str, place: str) -> None:
    attribute = {"rfc": "rfc", "decode": "decoder", "decode-only": "decode_only", "expect": "expect", "error": "error"}
    if word in attribute:
        assert value, f"{place}: {word} needs a value"
        setattr(vector, attribute[word], value)
    else:
        assert word in {"hex", "tshark"}, f"{place}: unknown word {word}"


def _take_indented(vector: Vector, section: str, text: str, place: str) -> None:
    if section == "hex":
        if text.startswith("@"):
            vector.lines.append(text)
            return
        match = BYTES.match(text)
        assert match, f"{place}: not bytes"
        vector.lines.append(match[1])
        return
    name, _, value = text.partition(" ")
    assert section in {"expect", "tshark"}, f"{place}: nothing is indented below {section}"
    (vector.fields if section == "expect" else vector.tshark).append((name, value.strip()))


def load_vectors() -> dict[str, Vector]:
    """All vectors by name."""
    vectors: dict[str, Vector] = {}
    for path in sorted(DIRECTORY.glob("*.txt")):
        for vector in parse(path.read_text(encoding="utf-8"), path.name):
            assert vector.name not in vectors, f"{path.name}: {vector.name} is there twice"
            assert vector.rfc, f"{path.name}: {vector.name} names no RFC"
            assert bool(vector.expect) != bool(vector.error), f"{path.name}: {vector.name} expects one thing"
            vectors[vector.name] = vector
    for vector in vectors.values():
        vector.data = b"".join(
            bytes.fromhex("".join(vectors[line[1:]].lines)) if line.startswith("@") else bytes.fromhex(line)
            for line in vector.lines
        )
    return vectors
