from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from relaymgr import logs


@pytest.fixture(autouse=True)
def kept_handlers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_a_record_is_one_line_of_keys_and_quoted_values():
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("relaymgr.x").info("two\nlines %s", "and more", extra={"relay": "mx 1", "count": 3})
    (line,) = stream.getvalue().splitlines()
    assert 'level=info logger=relaymgr.x message="two\\nlines and more"' in line
    assert line.endswith('relay="mx 1" count=3')


def test_json_has_the_exception_inside_the_object():
    stream = io.StringIO()
    logs.configure(as_json=True, stream=stream)
    try:
        int("broken")
    except ValueError:
        logging.getLogger("relaymgr.x").exception("it failed")
    record = json.loads(stream.getvalue())
    assert record["level"] == "error"
    assert "ValueError: invalid literal" in record["exception"]


@pytest.mark.parametrize("library", ["paramiko.transport", "ncclient.operations.rpc", "asyncssh", "netmiko"])
def test_libraries_that_write_what_they_send_are_silent(library: str):
    stream = io.StringIO()
    logs.configure("debug", stream=stream)
    logging.getLogger(library).error("<password>hunter2</password>")
    assert stream.getvalue() == ""
