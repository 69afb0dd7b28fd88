"""A change of one device: its phases, and what is true of it by what the device says.

A change asks the device to commit for some minutes only, looks at what became of it, and then confirms. Whoever holds
the job may die at any moment, and whatever an RPC returned may be wrong; so nothing is concluded from where the code
was, everything from a reading of the device and the times below.

    queued -> locking -> loading -> pending -> verifying -> confirming -> confirmed
                 |          |          |           |             |
                 |          +----------+-----+-----+-------------+--> waiting (nobody can tell yet; read again)
                 v                           v
       unchanged | refused               reverting --> reverted
                                   any of the right-hand side --> confirmed | reverted | refused | uncertain
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Final

from relaymgr.domain.configuration import Change, ChangeReading, Confirmation, OwnedConfiguration


class Phase(StrEnum):
    """Where a change stands."""

    QUEUED = "queued"
    LOCKING = "locking"
    """Waiting for the device, planning, reading what it was like before."""
    LOADING = "loading"
    """From before the first byte that changes anything until the device answered."""
    PENDING = "pending"
    """The device runs the change and goes back by itself when nobody confirms."""
    VERIFYING = "verifying"
    CONFIRMING = "confirming"
    REVERTING = "reverting"
    WAITING = "waiting"
    """The device cannot be read, or its answer is not final yet; it is read again."""
    CONFIRMED = "confirmed"
    UNCHANGED = "unchanged"
    """Nothing was to be done and nothing was sent."""
    REVERTED = "reverted"
    REFUSED = "refused"
    """The device is as before and never was otherwise."""
    UNCERTAIN = "uncertain"
    CANCELLED = "cancelled"
    READING = "reading"
    """Jobs that change nothing: plans, drift checks, backups."""
    DONE = "done"
    FAILED = "failed"


_SETTLED: Final = frozenset({Phase.CONFIRMED, Phase.REVERTED, Phase.REFUSED, Phase.UNCERTAIN})
_OPEN: Final = frozenset({Phase.PENDING, Phase.VERIFYING, Phase.CONFIRMING, Phase.REVERTING, Phase.WAITING})

TRANSITIONS: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.QUEUED: frozenset({Phase.LOCKING, Phase.REFUSED, Phase.CANCELLED}),
    Phase.LOCKING: frozenset(
        {Phase.QUEUED, Phase.LOADING, Phase.UNCHANGED, Phase.REFUSED, Phase.CANCELLED, Phase.READING}
    ),
    Phase.READING: frozenset({Phase.QUEUED, Phase.LOCKING, Phase.DONE, Phase.FAILED, Phase.CANCELLED}),
    Phase.DONE: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.LOADING: _OPEN - {Phase.CONFIRMING} | _SETTLED,
    Phase.PENDING: _OPEN - {Phase.CONFIRMING} | _SETTLED,
    Phase.VERIFYING: _OPEN | _SETTLED,
    Phase.CONFIRMING: _OPEN - {Phase.CONFIRMING} | _SETTLED,
    Phase.REVERTING: _OPEN - {Phase.CONFIRMING} | _SETTLED,
    Phase.WAITING: _OPEN - {Phase.CONFIRMING} | _SETTLED,
    Phase.CONFIRMED: frozenset(),
    Phase.UNCHANGED: frozenset(),
    Phase.REVERTED: frozenset(),
    Phase.REFUSED: frozenset(),
    Phase.UNCERTAIN: frozenset(),
    Phase.CANCELLED: frozenset(),
}
"""What may follow what. Confirming follows verifying and nothing else."""

PROGRESS: Final[dict[Phase, int]] = {
    Phase.QUEUED: 0,
    Phase.LOCKING: 10,
    Phase.READING: 30,
    Phase.LOADING: 30,
    Phase.PENDING: 50,
    Phase.VERIFYING: 60,
    Phase.CONFIRMING: 80,
    Phase.REVERTING: 80,
    Phase.WAITING: 70,
}
"""Percent shown on entering a phase; 100 for those that end a change."""


class IllegalTransition(Exception):
    """A change was to enter a phase that does not follow from where it is: a defect of ours."""

    def __init__(self, current: Phase, to: Phase) -> None:
        super().__init__(f"a change never goes from {current} to {to}")
        self.current = current
        self.to = to


def enter(current: Phase, to: Phase) -> Phase:
    """`to`, if it may follow `current` (staying where one is always may, while not ended).

    Raises:
        IllegalTransition: it may not.
    """
    if to in TRANSITIONS[current] or (to is current and TRANSITIONS[current]):
        return to
    raise IllegalTransition(current, to)


def progress(phase: Phase) -> int:
    """Percent done."""
    return PROGRESS.get(phase, 100)


class Begun(StrEnum):
    """What is known of the attempt to commit; recorded in the job."""

    UNKNOWN = "unknown"
    """It may be under way, or done, or never sent."""
    REFUSED = "refused"
    """The driver said that nothing was committed."""
    ACCEPTED = "accepted"
    """The driver said it was, or the device was seen with it."""


@dataclass(frozen=True, slots=True)
class Window:
    """The times of one change, kept with its job. Begun is what was recorded before the first byte was sent."""

    begun_at: datetime
    minutes: int
    """Confirm minutes the device was asked for."""
    commit_seconds: float
    """How long a commit of this device may take at most."""
    begun: Begun = Begun.UNKNOWN
    verified: bool | None = None
    """Recorded result of the verification; after False nothing may confirm."""
    confirm_sent: bool = False

    GRACE: ClassVar[timedelta] = timedelta(seconds=10)
    """Clocks of devices and ours, and the time a device takes to roll back."""
    GIVE_UP: ClassVar[timedelta] = timedelta(minutes=10)

    @property
    def earliest_end(self) -> datetime:
        """Before this the device does not go back by itself, wherever in the commit its timer started."""
        return self.begun_at + timedelta(minutes=self.minutes)

    @property
    def latest_end(self) -> datetime:
        """From here on no window of ours is open any more."""
        return self.earliest_end + timedelta(seconds=self.commit_seconds) + self.GRACE

    @property
    def quiet_at(self) -> datetime:
        """From here on no commit of ours can still be under way on the device."""
        if self.begun is not Begun.UNKNOWN:
            return self.begun_at
        return self.begun_at + timedelta(seconds=self.commit_seconds) + self.GRACE

    @property
    def give_up_at(self) -> datetime:
        """Well past the window: what is not known by then is reported as uncertain."""
        return self.latest_end + self.GIVE_UP

    def time_to_confirm(self, reading: ChangeReading, now: datetime) -> float:
        """Seconds left in which a confirmation still meets the change, at least."""
        if reading.seconds_left is not None:
            return float(reading.seconds_left)
        return (self.earliest_end - now).total_seconds()


class Truth(StrEnum):
    """What a reading means."""

    SUCCEEDED = "succeeded"
    """The device has what was desired, for good."""
    UNSAVED = "unsaved"
    """The device runs what was desired, for good, but would start without it: have it saved."""
    BACK = "back"
    """The device has nothing of the change, for good."""
    CONFIRMABLE = "confirmable"
    """Our change is on the device and waits: verify, then confirm."""
    REVERTIBLE = "revertible"
    """Our change is on the device, waits, and shall not stay."""
    UNSETTLED = "unsettled"
    """Read again later."""
    UNCERTAIN = "uncertain"
    """It will not become clearer; people have to look."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reading means, and why, as one sentence for the job's log."""

    truth: Truth
    reason: str


MARGIN_SECONDS: Final = 5.0
"""A confirmation started with less than this left might meet a device that just went back."""


def same(one: OwnedConfiguration, other: OwnedConfiguration) -> bool:
    """Whether two readings of owned sections mean the same configuration."""
    return one.text == other.text and set(one.scope) == set(other.scope)


def judge(reading: ChangeReading | None, change: Change, now: datetime, window: Window) -> Verdict:
    """What is true of `change`, by what the device says; the only place that decides it.

    Args:
        reading: what the device said at `now`; None when it could not be read.
        change: what was asked of it.
        now: the time, aware.
        window: the recorded times and facts of the attempt.
    """
    if reading is None:
        return _unsettled(now, window, "the device cannot be read")
    if reading.confirmation is Confirmation.NONE:
        return _judge_final(reading, change, now, window)
    if reading.confirmation is Confirmation.PENDING:
        if reading.confirmation_is_ours is False:
            return _judge_foreign(reading, change, now, window)
        return _judge_pending(reading, change, now, window)
    if now >= window.latest_end:
        return _judge_final(reading, change, now, window)
    return _judge_silent(reading, change, now, window)


def _judge_final(reading: ChangeReading, change: Change, now: datetime, window: Window) -> Verdict:
    """No window is open."""
    if now < window.quiet_at and not reading.committed:
        return Verdict(Truth.UNSETTLED, "a commit of ours may still be under way on the device")
    if same(reading.owned, change.desired):
        return _judge_kept(reading, now, window)
    if same(reading.owned, change.before):
        return Verdict(Truth.BACK, "the device is as it was before and waits for nothing")
    if window.begun is Begun.REFUSED and not _left_our_mark(reading, change):
        return Verdict(Truth.BACK, "the device refused the change; somebody else changed its owned sections since")
    return Verdict(Truth.UNCERTAIN, "the owned sections are neither what was desired nor what was before")


def _judge_kept(reading: ChangeReading, now: datetime, window: Window) -> Verdict:
    if reading.saved is not False:
        return Verdict(Truth.SUCCEEDED, "the device has what was desired and waits for nothing")
    reason = "the device has what was desired, but did not save it for its next start"
    return Verdict(Truth.SUCCEEDED if now >= window.give_up_at else Truth.UNSAVED, reason)


def _left_our_mark(reading: ChangeReading, change: Change) -> bool:
    if reading.committed is not None:
        return reading.committed
    comment = reading.last_commit.comment if reading.last_commit else None
    return comment is not None and change.mark in comment


def _judge_foreign(reading: ChangeReading, change: Change, now: datetime, window: Window) -> Verdict:
    """Somebody else's window is open: it is theirs, whatever the sections hold, and not touched."""
    if window.begun is Begun.REFUSED and same(reading.owned, change.before):
        return Verdict(Truth.BACK, "the device refused ours; a confirm window of somebody else is open")
    return _unsettled(now, window, "a confirm window of somebody else is open")


def _judge_pending(reading: ChangeReading, change: Change, now: datetime, window: Window) -> Verdict:
    """Our window is open, or one whose owner the device does not tell."""
    if reading.confirmation_is_ours is None and window.begun is Begun.REFUSED:
        return _judge_foreign(reading, change, now, window)
    if not same(reading.owned, change.desired):
        return _unsettled(now, window, "a confirm window is open over something else than what was desired")
    if window.time_to_confirm(reading, now) <= MARGIN_SECONDS:
        return _unsettled(now, window, "too little of the confirm window is left; the device goes back by itself")
    if window.verified is False:
        return Verdict(Truth.REVERTIBLE, "the change waits for a confirmation it must not get")
    return Verdict(Truth.CONFIRMABLE, "the change is on the device and waits for its confirmation")


def _judge_silent(reading: ChangeReading, change: Change, now: datetime, window: Window) -> Verdict:
    """The device does not tell of windows, and ours may still be open."""
    if window.begun is Begun.REFUSED and same(reading.owned, change.before):
        return Verdict(Truth.BACK, "the device refused the change and is as before")
    if window.confirm_sent or not same(reading.owned, change.desired):
        return Verdict(Truth.UNSETTLED, "the device does not tell whether a confirm window is open")
    return _judge_pending(reading, change, now, window)


def _unsettled(now: datetime, window: Window, reason: str) -> Verdict:
    if now >= window.give_up_at:
        return Verdict(Truth.UNCERTAIN, reason)
    return Verdict(Truth.UNSETTLED, reason)
