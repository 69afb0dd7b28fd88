"""Log lines: one a record, parseable, and each reason once in a while."""

import io
import json
import logging
import shlex

import pytest

from agent.service import logs
from agent.service.config import LogFormat, LogLevel, LogSection


@pytest.fixture
def restore_logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def configured(restore_logging):
    def configure(**section):
        stream = io.StringIO()
        logs.configure(LogSection(**section), stream)
        return stream

    return configure


log = logging.getLogger("agent.test")


def test_a_json_line_is_one_object_with_the_extra_fields(configured):
    stream = configured(format=LogFormat.JSON)
    log.info("joined %s", "(S,G)", extra={"interface": "eth1", "reason": "report", "count": 3})
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "logger": "agent.test",
        "message": "joined (S,G)",
        "interface": "eth1",
        "reason": "report",
        "count": 3,
    }


@pytest.mark.parametrize(
    "value", ["plain", "two words", 'a "quote"', "line\nbreak", "a=b", "", "esc\x1b[31m", "back\\slash"]
)
def test_a_logfmt_line_is_one_line_whatever_it_says(configured, value):
    stream = configured()
    log.warning("%s", value, extra={"field": value})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert all("=" in pair for pair in shlex.split(text))
    assert ("field=plain\n" in text) is (value == "plain")


def test_an_exception_stays_on_one_line(configured):
    stream = configured(format=LogFormat.JSON)
    try:
        int("of\nsorts")
    except ValueError:
        log.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


def test_the_level_is_the_least_written(configured):
    stream = configured(level=LogLevel.WARNING)
    log.info("no")
    log.warning("yes")
    assert [line.split("message=")[1] for line in stream.getvalue().splitlines()] == ["yes"]


def test_configuring_again_replaces(configured):
    first, second = configured(), configured()
    log.warning("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def limited():
    clock = Clock()
    rate = logs.RateLimit(10.0, clock)

    def passes(message, level=logging.WARNING, name="x", **extra):
        record = logging.LogRecord(name, level, __file__, 1, message, None, None)
        vars(record).update(extra)
        return getattr(record, "suppressed", 0) if rate.filter(record) else None

    return clock, passes


def test_the_same_reason_is_written_once_an_interval_and_the_next_counts_the_rest(limited):
    clock, passes = limited
    assert passes("bad packet from %s", reason="length") == 0
    assert [passes("bad packet from %s", reason="length") for _ in range(7)] == [None] * 7
    clock.now = 9.99
    assert passes("bad packet from %s", reason="length") is None
    clock.now = 10.0
    assert passes("bad packet from %s", reason="length") == 8
    assert passes("bad packet from %s", reason="length") is None


def test_other_reasons_loggers_and_levels_are_counted_apart(limited):
    _, passes = limited
    assert passes("m", reason="a") == 0
    assert passes("m", reason="b") == 0
    assert passes("m", reason="a", name="y") == 0
    assert passes("m", reason="a", level=logging.INFO) == 0


def test_events_without_a_reason_are_written_until_they_are_a_flood(limited):
    clock, passes = limited
    written = [passes("tunnel up") for _ in range(100)]
    assert written == [0] * logs._BURST + [None] * (100 - logs._BURST)
    clock.now = 10.0
    assert passes("tunnel up") == 100 - logs._BURST


def test_errors_are_never_left_out(limited):
    _, passes = limited
    assert [passes("failed", level=logging.ERROR) for _ in range(5)] == [0] * 5


def test_endless_new_reasons_do_not_grow_memory():
    rate = logs.RateLimit(10.0, Clock())
    for number in range(5000):
        rate.filter(_reason(number))
    assert len(rate._seen) <= 1000


def _reason(number):
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "m", None, None)
    record.reason = f"reason {number}"
    return record
