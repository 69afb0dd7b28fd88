"""How a refused configuration is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong in a configuration.

    Attributes:
        line: line of the file, counted from 1.
        key: dotted key, such as `gateway.relay[0].address`; empty for the file itself.
        message: what is wrong and, where it is known, what is right.
    """

    line: int
    key: str
    message: str


class ConfigurationError(Exception):
    """A configuration was refused as a whole.

    Attributes:
        origin: file name, or what else the text came from.
        faults: everything wrong with it, in file order; never empty.
    """

    def __init__(self, origin: str, faults: list[Fault]) -> None:
        self.origin = origin
        self.faults = sorted(faults)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One `file:line: key: message` for each fault."""
        return [
            f"{self.origin}:{fault.line}: {fault.key}{': ' if fault.key else ''}{fault.message}"
            for fault in self.faults
        ]
