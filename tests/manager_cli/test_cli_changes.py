"""Plans shown, changes agreed to and followed, drift, rollouts, backups: what is seen and what the exit status says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from manager_cli.running_manager import RunningManager, now

from relaymgr.cli import journal
from relaymgr.cli.streams import follow
from relaymgr.store.envelope import backup_context
from relaymgr.store.sealing import Sealer
from relaymgr.store.tables import Backup, DriftRow, Event, new_id


def test_plan_shows_the_diff_and_who_made_it(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    told = relaymgr("relay", "plan", mx1, "--commands").stdout
    assert "+   tunnel-limit 5000;" in told
    assert "(diff by the device)" in told
    assert "set protocols amt relay" in told
    plan = relaymgr.json("relay", "plan", mx1, "--kind", "drain")
    assert (plan["kind"], manager.script.planned[-1]) == ("drain", "drain")


@pytest.mark.parametrize("kind", ["apply", "drain", "undrain", "rollback", "restore"])
def test_change_is_shown_asked_and_followed(
    manager: RunningManager, relaymgr: Any, mx1: str, kind: str, somebody: None
) -> None:
    refused = relaymgr("relay", kind, mx1, status=1, input="n\n")
    assert "+   tunnel-limit 5000;" in refused.stdout
    assert manager.script.submitted == []
    words = ("--confirm-minutes", "7", "--probe", "--comment", "why", "--ticket", "NOC-1")
    done = relaymgr("relay", kind, mx1, *words, input="y\n")
    assert f"{kind} succeeded" in done.stdout
    assert "AMT answers" in done.stderr
    (order,) = manager.script.submitted
    assert (order["kind"], order["comment"], order["ticket"]) == (kind, "why", "NOC-1")
    assert order["parameters"] == {"confirm_minutes": 7, "probe": True}
    assert order["plan_id"] is not None


def test_change_needs_a_yes_in_scripts(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    assert "say --yes" in relaymgr("relay", "apply", mx1, status=2).stderr
    assert "say --yes" in relaymgr("relay", "apply", mx1, "--json", status=2).stderr
    assert manager.script.submitted == []


def test_apply_of_a_plan_made_before(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    plan = relaymgr.json("relay", "plan", mx1)
    job = relaymgr.json("relay", "apply", mx1, "--plan", plan["id"], "--yes")
    assert (job["plan_id"], job["state"]) == (plan["id"], "succeeded")
    assert manager.script.planned.count("apply") == 1


def test_nothing_to_change_is_not_asked(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    manager.script.diff = ""
    told = relaymgr("relay", "apply", mx1).stdout
    assert "nothing would change" in told
    assert "succeeded, nothing had to be changed" in told


@pytest.mark.parametrize(("state", "status"), [("failed", 4), ("rolled_back", 4), ("cancelled", 4), ("uncertain", 5)])
def test_exit_status_is_the_outcome(manager: RunningManager, relaymgr: Any, mx1: str, state: str, status: int) -> None:
    manager.script.state, manager.script.error = state, ("device_unreachable", "mx1: no answer")
    told = relaymgr("relay", "apply", mx1, "--yes", status=status)
    assert state in told.stdout
    assert "mx1: no answer (device_unreachable)" in told.stdout
    assert relaymgr.json("relay", "apply", mx1, "--yes", status=status)["state"] == state


def test_no_wait_prints_the_job_to_watch_later(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    told = relaymgr("relay", "apply", mx1, "--yes", "--no-wait").stdout.splitlines()
    assert "apply succeeded" in relaymgr("job", "watch", told[-1]).stdout
    assert relaymgr.json("job", "show", told[-1])["kind"] == "apply"
    assert "commit confirmed 5" in relaymgr("job", "show", told[-1]).stdout
    assert mx1 in relaymgr("job", "list", "--relay", mx1, "--state", "succeeded").stdout
    assert "asked apply" in relaymgr("job", "cancel", told[-1]).stdout


def test_watch_goes_on_where_the_stream_broke(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    manager.script.ends_with_stream = True
    job_id = relaymgr("relay", "apply", mx1, "--yes", "--no-wait").stdout.splitlines()[-1]
    manager.script.break_streams = 2
    told = relaymgr("job", "watch", job_id)
    assert "apply succeeded" in told.stdout
    first, second, third = manager.script.followed_after
    assert (first, third) == (0, second + 1)
    assert [told.stderr.count(message) for message in ("locked", "commit confirmed 5", "AMT answers")] == [1, 1, 1]


def test_watch_tells_the_last_lines_of_a_job_that_ended_while_the_stream_was_broken(
    manager: RunningManager, relaymgr: Any, mx1: str
) -> None:
    job_id = relaymgr("relay", "apply", mx1, "--yes", "--no-wait").stdout.splitlines()[-1]
    manager.script.break_streams = 1
    told = relaymgr("job", "watch", job_id)
    assert [told.stderr.count(message) for message in ("locked", "commit confirmed 5", "AMT answers")] == [1, 1, 1]


def test_drift_accept(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    assert "never looked at" in relaymgr("relay", "drift", mx1, status=5).stdout
    relay_id = relaymgr.json("relay", "show", mx1)["id"]
    manager.add(
        DriftRow(
            relay_id=relay_id, state="drifted", diff="-tunnel-limit 5000;\n+tunnel-limit 1;\n", changed_by="netops",
            checked_at=now(), since=now(), changed_at=now(),
        )
    )  # fmt: skip
    told = relaymgr("relay", "drift", mx1, status=1).stdout
    assert "netops" in told
    assert "+tunnel-limit 1;" in told
    assert mx1 in relaymgr("relay", "drift", "--state", "drifted").stdout
    relaymgr("relay", "accept", mx1, status=2)
    relaymgr("relay", "accept", mx1, "--yes", "--comment", "agreed")
    assert relaymgr.json("relay", "drift", mx1)["state"] == "none"
    relaymgr("relay", "drift", mx1, "--check")
    assert manager.script.submitted[-1]["kind"] == "drift"


def test_rollout(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    words = ("rollout", "create", f"r-{mx1}", "--relay", mx1, "--sizes", "1", "--error-budget", "2", "--yes")
    done = relaymgr(*words, "--comment", "all")
    assert "succeeded" in done.stdout
    order = manager.script.submitted[-1]
    assert (order["error_budget"], order["comment"], order["kind"]) == (2, "all", "apply")
    both = relaymgr.json("rollout", "show", f"r-{mx1}")
    assert [row["state"] for row in both["relays"]] == ["succeeded"]
    assert f"r-{mx1}" in relaymgr("rollout", "list").stdout
    assert mx1 in relaymgr("rollout", "show", both["rollout"]["id"]).stdout


def test_rollout_is_steered(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    manager.script.rollout_state = "running"
    words = ("rollout", "create", f"s-{mx1}", "--relay", mx1, "--yes", "--no-wait")
    rollout = relaymgr(*words).stdout.split()[-1]
    assert "is paused" in relaymgr("rollout", "pause", rollout, "--comment", "wait").stdout
    relaymgr("rollout", "watch", rollout, status=1)
    assert "is running" in relaymgr("rollout", "resume", rollout).stdout
    relaymgr("rollout", "abort", rollout, status=2)
    assert "is aborted" in relaymgr("rollout", "abort", rollout, "--yes").stdout
    relaymgr("rollout", "watch", rollout, status=4)
    assert "rollout_finished" in relaymgr("rollout", "resume", rollout, status=1).stderr


def test_rollout_of_no_relay_is_wrong_usage(manager: RunningManager, relaymgr: Any) -> None:
    relaymgr("rollout", "create", "none", "--yes", status=2)
    relaymgr("rollout", "create", "none", "--label", "region=nowhere", "--yes", status=1)


def test_backups(manager: RunningManager, relaymgr: Any, mx1: str, tmp_path: Any) -> None:
    relay_id = relaymgr.json("relay", "show", mx1)["id"]
    identifiers = [new_id(), new_id()]
    for identifier, text in zip(identifiers, ["host-name a;\n", "host-name b;\n"], strict=True):
        manager.add(
            Backup(
                id=identifier, relay_id=relay_id, taken_at=now(), sha256="0" * 64, size_bytes=13, reason="periodic",
                sealed=Sealer(bytes(32)).seal(text.encode(), backup_context(identifier)),
            )
        )  # fmt: skip
    assert identifiers[0] in relaymgr("backup", "list", "--relay", mx1).stdout
    told = relaymgr("backup", "diff", *sorted(identifiers)).stdout
    assert "-host-name" in told
    assert "-host-name" in relaymgr("backup", "diff", mx1).stdout
    assert relaymgr("backup", "show", identifiers[0]).stdout == "host-name a;\n"
    file = tmp_path / "mx1.conf"
    relaymgr("backup", "show", identifiers[1], "-o", str(file))
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("host-name b;\n", 0o600)
    relaymgr("backup", "take", mx1)
    assert manager.script.submitted[-1]["kind"] == "backup"


def test_audit_and_events(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    manager.add(Event(at=now(), severity="critical", kind="relay.unreachable", message=f"{mx1}: no answer", data={}))
    assert f"{mx1}: no answer" in relaymgr("event", "list", "--severity", "critical").stdout
    assert "intent.put" in relaymgr("audit", "list", "--action", "intent.put").stdout
    entries = relaymgr.json("audit", "list")
    assert "s3cret-of-mx" not in str(entries)


def test_refusal_names_code_and_job(manager: RunningManager, relaymgr: Any, mx1: str) -> None:
    relaymgr("relay", "set", mx1, "--disable")
    told = relaymgr("relay", "plan", mx1, status=1).stderr
    assert "(relay_disabled, request " in told


def test_events_are_watched_as_they_happen(
    manager: RunningManager, relaymgr: Any, mx1: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_first(*words: Any, **options: Any) -> Iterator[Any]:
        for event in follow(*words, **options):
            yield event
            if event is not None and "wanted" in event.data:
                raise KeyboardInterrupt

    def happening() -> None:
        while not seen.wait(0.1):
            manager.add(
                Event(at=now(), severity="info", kind="relay.polled", message="other", data={}),
                Event(at=now(), severity="critical", kind="relay.unreachable", message="wanted", data={}),
            )

    monkeypatch.setattr(journal, "follow", until_first)
    seen = threading.Event()
    thread = threading.Thread(target=happening)
    thread.start()
    try:
        told = relaymgr("event", "watch", "--severity", "critical", "--json").stdout.splitlines()
    finally:
        seen.set()
        thread.join()
    assert [json.loads(line)["message"] for line in told] == ["wanted"]
