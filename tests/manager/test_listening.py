from __future__ import annotations

from pathlib import Path

import pytest

from relaymgr.listening import ListenRefused, listening
from relaymgr.settings import Settings


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("localhost:80", "http://localhost:80"),
    ],
)
def test_loopback_may_be_in_clear(text: str, url: str):
    assert listening(Settings(listen=text)).url == url


@pytest.mark.parametrize("text", ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "noc.example.net:80"])
def test_anything_else_needs_tls_or_the_operators_word(text: str):
    with pytest.raises(ListenRefused, match="in clear"):
        listening(Settings(listen=text))
    assert listening(Settings(listen=text, allow_clear_text=True)).certificate is None
    tls = listening(Settings(listen=text, tls_certificate=Path("c.pem"), tls_key=Path("k.pem")))
    assert tls.url.startswith("https://")


@pytest.mark.parametrize("text", ["", "8080", "127.0.0.1", "127.0.0.1:", ":8080", "127.0.0.1:x", "127.0.0.1:70000"])
def test_nonsense_is_refused_with_an_example(text: str):
    with pytest.raises(ListenRefused, match=r"127\.0\.0\.1:8080"):
        listening(Settings(listen=text))


def test_half_of_tls_is_refused():
    with pytest.raises(ListenRefused, match="both"):
        listening(Settings(tls_certificate=Path("c.pem")))
