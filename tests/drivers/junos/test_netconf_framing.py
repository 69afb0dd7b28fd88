"""Framing of NETCONF: whole messages whatever the pieces, and no hostile input that hangs, grows or confuses it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymgr.drivers.netconf.documents import MalformedDocument, parse
from relaymgr.drivers.netconf.framing import END_OF_MESSAGE, Framing, FramingError

LIMIT = 4096
MESSAGES = st.lists(st.binary(min_size=1, max_size=200).filter(lambda m: b"]]>" not in m), min_size=1, max_size=5)


def everything(framing: Framing, stream: bytes, pieces: list[int]) -> list[bytes]:
    found, at, turn = [], 0, 0
    while at < len(stream):
        step = pieces[turn % len(pieces)]
        framing.receive(stream[at : at + step])
        at, turn = at + step, turn + 1
        while (message := framing.next_message()) is not None:
            found.append(message)
    return found


@settings(max_examples=60, deadline=None)
@given(messages=MESSAGES, pieces=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_marked_messages_survive_any_cutting(messages, pieces):
    writer, reader = Framing(LIMIT), Framing(LIMIT)
    stream = b"".join(writer.frame(message) for message in messages)
    assert everything(reader, stream, pieces) == messages


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5),
    chunk=st.integers(1, 64),
    pieces=st.lists(st.integers(1, 50), min_size=1, max_size=5),
)
def test_chunked_messages_survive_any_cutting(messages, chunk, pieces):
    stream = b""
    for message in messages:
        for at in range(0, len(message), chunk):
            part = message[at : at + chunk]
            stream += b"\n#%d\n" % len(part) + part
        stream += b"\n##\n"
    reader = Framing(LIMIT)
    reader.upgrade()
    assert everything(reader, stream, pieces) == messages


@settings(max_examples=200, deadline=None)
@given(
    noise=st.binary(max_size=600), chunked=st.booleans(), pieces=st.lists(st.integers(1, 99), min_size=1, max_size=3)
)
def test_noise_ends_in_messages_or_one_error(noise, chunked, pieces):
    reader = Framing(100)
    if chunked:
        reader.upgrade()
    try:
        for message in everything(reader, noise, pieces):
            assert len(message) <= 100
    except FramingError:
        pass


@pytest.mark.parametrize(
    "stream",
    [
        b"\n#0\n",
        b"\n#01\nx",
        b"\n#-1\nx",
        b"\n#4294967296\n",
        b"\n#99999999999999999999",
        b"\n##\n",
        b"x#1\n",
        b"\n#1x\n",
        b"\n#\xb2\n",
        b"\n#1\nx\n#\n",
    ],
)
def test_broken_chunks_are_refused(stream):
    reader = Framing(LIMIT)
    reader.upgrade()
    with pytest.raises(FramingError):
        everything(reader, stream, [1])


@pytest.mark.parametrize("chunked", [False, True])
def test_a_message_beyond_the_limit_is_refused_before_it_is_held(chunked):
    reader = Framing(LIMIT)
    if chunked:
        reader.upgrade()
    with pytest.raises(FramingError):
        everything(reader, b"\n#4000000000\n" if chunked else b"x" * (3 * LIMIT), [500])


def test_an_endless_row_of_small_chunks_is_refused():
    reader = Framing(LIMIT)
    reader.upgrade()
    with pytest.raises(FramingError):
        everything(reader, b"\n#100\n" + b"x" * 100 + (b"\n#100\n" + b"y" * 100) * 100, [50])


def test_bytes_behind_the_hello_are_read_as_chunks():
    reader = Framing(LIMIT)
    reader.receive(b"<hello/>" + END_OF_MESSAGE + b"\n#2\nok\n##\n")
    assert reader.next_message() == b"<hello/>"
    reader.upgrade()
    assert reader.next_message() == b"ok"


def test_a_message_with_the_mark_in_it_is_not_sent_unframed():
    with pytest.raises(FramingError):
        Framing(LIMIT).frame(b"a]]>]]>b")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\x80\x81<<&&",
        b"<a><b></a>",
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        b"<a>" * 5000 + b"</a>" * 5000,
    ],
)
def test_hostile_documents_are_refused(document):
    with pytest.raises(MalformedDocument):
        parse(document)


def test_a_declaration_is_no_harm():
    assert parse(b'<?xml version="1.0" encoding="UTF-8"?>\n<rpc-reply/>').tag == "rpc-reply"
