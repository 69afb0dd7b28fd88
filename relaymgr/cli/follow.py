"""Watching a job or a rollout to its end: a progress bar on a terminal, lines elsewhere, a status for programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import click
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from relaymgr.cli.client import Document, Manager, segment
from relaymgr.cli.failure import EXIT_JOB_FAILED, EXIT_UNCERTAIN, Failure, Refused, Unreachable
from relaymgr.cli.output import cell, console, print_json, until
from relaymgr.cli.streams import TRY_AGAIN_STATUS, follow

ENDED: Final = frozenset({"succeeded", "failed", "rolled_back", "cancelled", "uncertain"})
_LEVEL_STYLES: Final = {"warning": "yellow", "error": "red"}
_INTERRUPTED: Final = 130
_EXITS: Final = {"succeeded": 0, "uncertain": EXIT_UNCERTAIN}


class JobDisplay:
    """Says on standard error how a job goes."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = console(error=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    @contextmanager
    def shown(self, title: str) -> Iterator[None]:
        """Show the bar while the block runs, on a terminal."""
        if self._quiet or not self._console.is_terminal:
            yield
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[window]}", style="yellow"),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            self._progress = progress
            self._task = progress.add_task(title, total=100, window="")
            try:
                yield
            finally:
                self._progress = None

    def entry(self, entry: Document) -> None:
        """One line of the log."""
        if self._quiet:
            return
        at = datetime.fromisoformat(entry["at"]).astimezone().strftime("%H:%M:%S")
        style = _LEVEL_STYLES.get(entry["level"], "")
        line = Text(f"{at} {entry['progress']:>3}% {entry['phase']}: ", style="dim")
        line.append(str(cell(entry["message"])), style=style)
        self._console.print(line, soft_wrap=True)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=entry["progress"], description=entry["phase"])

    def job(self, job: Document) -> None:
        """The job as it is now."""
        if self._progress is None or self._task is None:
            return
        left = until(job["confirm_deadline"])
        window = f"confirm window: {left}" if left and job["state"] not in ENDED else ""
        self._progress.update(self._task, completed=job["progress"], description=job["phase"], window=window)

    def note(self, text: str) -> None:
        """Something about the watching itself."""
        if not self._quiet:
            self._console.print(Text(text, style="dim"), soft_wrap=True)


def watch_job(manager: Manager, job_id: str, *, quiet: bool) -> Document:
    """Follow a job until it ended; the job as it is then.

    The log is read from its beginning, each line once, also over a manager that restarts meanwhile.
    """
    display = JobDisplay(quiet=quiet)
    path = f"/jobs/{segment(job_id)}"
    phase, told = "", 0
    with _interruptible(job_id), display.shown("job"):
        for event in follow(manager, f"{path}/events", on_break=lambda: display.note("… asking again")):
            document = {} if event is None else event.document()
            if event is not None and event.event == "log":
                display.entry(document)
                told = document["id"]
                if document["phase"] == phase:
                    continue
                phase = document["phase"]
            job = document if event is not None and event.event == "job" else _now(manager, path)
            if job is None:
                continue
            display.job(job)
            if job["state"] in ENDED and (event is None or event.event == "job"):
                if event is None:  # the stream broke before its last lines
                    _tell_rest(manager, path, display, told)
                return job
    raise AssertionError("a stream is followed until its reader leaves it")


def _tell_rest(manager: Manager, path: str, display: JobDisplay, told: int) -> None:
    for entry in manager.rows(f"{path}/log", limit=None).items:
        if entry["id"] > told:
            display.entry(entry)


def _now(manager: Manager, path: str) -> Document | None:
    """A job as it is; None when the manager does not answer just now."""
    try:
        found: Document = manager.get(path)
    except Unreachable:
        return None
    except Refused as refused:
        if refused.status in TRY_AGAIN_STATUS:
            return None
        raise
    return found


def end_of_job(job: Document, *, as_json: bool) -> None:
    """Tell how a job ended; exits with 4 or 5 when it did not succeed."""
    if as_json:
        print_json(job)
    else:
        _say_end(job)
    status = _EXITS.get(job["state"], EXIT_JOB_FAILED)
    if status:
        raise SystemExit(status)


def _say_end(job: Document) -> None:
    state = job["state"]
    unchanged = state == "succeeded" and job["result"].get("unchanged") is True
    line = cell(state)
    if unchanged:
        line.append(", nothing had to be changed")
    if job["error_code"]:
        line.append(f": {job['error_detail'] or 'no detail'} ({job['error_code']})")
    console().print(Text(f"{job['kind']} ").append_text(line), soft_wrap=True)
    if state == "uncertain":
        click.echo("The device has to be looked at: nobody could read what it holds now.", err=True)
    if state == "rolled_back":
        click.echo("The device is as it was before.", err=True)


@contextmanager
def _interruptible(job_id: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        hint = f"no longer watching; the job goes on: relaymgr job watch {job_id}, or relaymgr job cancel {job_id}"
        raise Failure(hint, _INTERRUPTED) from None
    except Failure as failure:
        hint = f"{failure.message}\n  the job goes on without us: relaymgr job watch {job_id}"
        raise Failure(hint, failure.exit_code) from None


def pause(seconds: float) -> None:
    """Wait between two looks."""
    time.sleep(seconds)
