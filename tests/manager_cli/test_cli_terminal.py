"""What only a terminal shows: colours, the progress bar; and what an interrupt leaves."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from manager_cli.running_manager import DIFF, RunningManager
from rich.console import Console

from relaymgr.cli import differences, follow
from relaymgr.cli.differences import print_diff, print_text

GREEN, RED = "\x1b[32m", "\x1b[31m"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Where a terminal of 100 columns would show what is printed."""
    screen = io.StringIO()

    def console(*, error: bool = False) -> Console:
        return Console(file=screen, force_terminal=True, width=100, highlight=False, color_system="standard")

    for module in (follow, differences):
        monkeypatch.setattr(module, "console", console)
    return screen


def test_diff_is_coloured(terminal: io.StringIO) -> None:
    print_diff(DIFF)
    shown = terminal.getvalue()
    assert f"{GREEN}+   tunnel-limit 5000;" in shown
    assert f"{RED}-   tunnel-limit 100;" in shown


def test_text_of_a_device_cannot_steer_the_terminal(terminal: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    print_text("banner \x1b]0;owned\x07\ttext\n")
    assert "\x1b]0" not in terminal.getvalue()
    assert "�]0;owned�" in terminal.getvalue()


def test_text_is_kept_byte_for_byte_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_diff("+\tlimit [5000];\n")
    assert capsys.readouterr().out == "+\tlimit [5000];\n"


def test_progress_is_shown(manager: RunningManager, relaymgr: Any, mx1: str, terminal: io.StringIO) -> None:
    manager.script.ends_with_stream = True
    manager.script.break_streams = 1
    relaymgr("relay", "apply", mx1, "--yes")
    shown = terminal.getvalue()
    assert "commit confirmed 5" in shown
    assert "asking again" in shown
    assert "%" in shown
    assert "succeeded" in shown


def test_interrupt_leaves_the_job_alone(
    manager: RunningManager, relaymgr: Any, mx1: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(follow, "follow", interrupted)
    told = relaymgr("relay", "apply", mx1, "--yes", status=130).stderr
    assert "the job goes on: relaymgr job watch " in told


def test_a_manager_that_goes_away_while_watched_is_exit_3(
    manager: RunningManager, relaymgr: Any, mx1: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> Iterator[None]:
        raise follow.Unreachable("the manager stopped answering")
        yield

    monkeypatch.setattr(follow, "follow", gone)
    told = relaymgr("relay", "apply", mx1, "--yes", status=3).stderr
    assert "the job goes on without us: relaymgr job watch " in told
