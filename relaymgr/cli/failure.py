"""How commands of `relaymgr` end when they do not succeed: one line for people, one exit status for programs."""

from __future__ import annotations

import sys
from typing import IO, Any, Final

import click

EXIT_FAILED: Final = 1
"""Refused by the manager, or failed."""
EXIT_USAGE: Final = 2
"""Wrong usage, an unreadable file, no address of a manager."""
EXIT_UNREACHABLE: Final = 3
"""No manager answers, or it stopped answering."""
EXIT_JOB_FAILED: Final = 4
"""A job (or rollout) that was waited for failed, was cancelled or rolled back: the device is as it was."""
EXIT_UNCERTAIN: Final = 5
"""A job that was waited for ended uncertain: somebody has to look at the device."""

EXIT_HELP: Final = """\b
Exit status: 0 done; 1 refused or failed; 2 wrong usage; 3 no manager answers;
4 the job failed or was rolled back; 5 the outcome on the device is uncertain."""


class Failure(click.ClickException):
    """Ends the program with a message on standard error and a documented exit status."""

    def __init__(self, message: str, status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click types it per class, and reads it per instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message, led by the program's name."""
        click.echo(f"relaymgr: {self.format_message()}", file=file or sys.stderr)


class Refused(Failure):
    """The manager answered with a problem (RFC 9457).

    Attributes:
        code: stable, documented code of the problem; `http_STATUS` where the answer carried none.
        status: HTTP status.
        problem: the document as answered, empty where it was none.
    """

    def __init__(self, message: str, code: str, status: int, problem: dict[str, Any]) -> None:
        super().__init__(message, EXIT_FAILED)
        self.code = code
        self.status = status
        self.problem = problem


class Unreachable(Failure):
    """No manager answers."""

    def __init__(self, message: str) -> None:
        super().__init__(message, EXIT_UNREACHABLE)
