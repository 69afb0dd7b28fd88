"""A vector of forwarding: frames the relay sends, and what is to become of them; and how it is written in a file.

    == NAME ==
    rfc TEXT                the section that decides
    choice TEXT             where the RFC leaves it to us: what this product does
    outer 4|6               family of the tunnel
    link ordinary|jumbo     which MTUs
    left REASON             a program in front of the socket may leave it to the socket: one of EXCEPTIONS of
                            agent/dataplane/fast/layout.py, or `control`, or `kernel`
    needs ABILITY           an engine without it does what the sections `unseen DOWN` say instead; abilities are in
                            tests/forwarding/engines.py, with the reason why anybody is without them
    counted REASON          what an engine without the ability refuses the packet for
    frame                   followed by indented lines; a frame the relay sends, in this order
    expect forward          `forward DOWN` follows for every frame that leaves, in this order
    expect refuse REASON    nothing leaves, and the reason is counted once
    expect control          the message, as `message` has it, goes to the protocol machine
    expect nothing REASON…  nothing leaves; the kernel dropped it, or it is counted by one of the reasons

An indented line is octets and, after two spaces, what they are; or `counting N from M`: N octets of the counting
pattern of `frames.counting`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from vectors.forwarding.frames import counting

SHORTEST_RUN = 24


@dataclass
class Case:
    """One vector; the attributes are those of the file."""

    name: str
    rfc: str
    outer: int = 4
    link: str = "ordinary"
    choice: str = ""
    left: str = ""
    needs: str = ""
    counted: str = ""
    frames: list[bytes] = field(default_factory=list)
    expect: str = "forward"
    reasons: tuple[str, ...] = ()
    message: bytes | None = None
    forward: list[tuple[str, bytes]] = field(default_factory=list)
    unseen: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def leaves(self) -> dict[str, list[bytes]]:
        """Frames that leave, by interface."""
        return _by_interface(self.forward)

    @property
    def leaves_unseen(self) -> dict[str, list[bytes]]:
        """Frames that leave an engine without the ability the case needs, by interface."""
        return _by_interface(self.unseen)


def _by_interface(pairs: list[tuple[str, bytes]]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for interface, frame in pairs:
        found.setdefault(interface, []).append(frame)
    return found


def write(case: Case) -> list[str]:
    """The lines of a vector."""
    lines = [f"== {case.name} ==", f"rfc {case.rfc}"]
    lines += [f"choice {case.choice}"] if case.choice else []
    lines += [f"outer {case.outer}", f"link {case.link}"]
    lines += [f"left {case.left}"] if case.left else []
    lines += [f"needs {case.needs}"] if case.needs else []
    lines += [f"counted {case.counted}"] if case.counted else []
    for frame in case.frames:
        lines += ["frame", *_octets(frame, outer=True)]
    lines.append(" ".join(("expect", case.expect, *case.reasons)))
    if case.message is not None:
        lines += ["message", *_run(case.message)]
    for word, pairs in (("forward", case.forward), ("unseen", case.unseen)):
        for interface, frame in pairs:
            lines += [f"{word} {interface}", *_octets(frame, outer=False)]
    return [*lines, ""]


def _octets(frame: bytes, *, outer: bool) -> list[str]:
    """A frame's headers, one a line, as far as it has them, and the rest."""
    cuts = [(14, "Ethernet")]
    at = 14
    if frame[12:14] == b"\x81\x00":
        cuts = [(18, "Ethernet, 802.1Q")]
        at = 18
    if outer:
        size = (frame[at] & 15) * 4 if frame[at] >> 4 == 4 else 40
        cuts += [(at + size, f"IPv{frame[at] >> 4}")]
        at += size
        first_or_whole = _starts_with_udp(frame, at - size, size)
        if first_or_whole:
            cuts += [(at + 8, "UDP"), (at + 10, "AMT")]
            at += 10
    if at < len(frame) and (not outer or first_or_whole):
        cuts += [(at + _header_size(frame[at:]), f"IPv{frame[at] >> 4}")]
    lines: list[str] = []
    begin = 0
    for end, name in cuts:
        if begin < end <= len(frame):
            lines.append(f"  {frame[begin:end].hex(' ')}  {name}")
            begin = end
    return lines + _run(frame[begin:])


def _starts_with_udp(frame: bytes, at: int, size: int) -> bool:
    if frame[at] >> 4 == 4:
        return frame[at + 9] == 17 and (frame[at + 6] & 0x1F, frame[at + 7]) == (0, 0) and size >= 20
    return frame[at + 6] == 17


def _header_size(packet: bytes) -> int:
    if packet[0] >> 4 == 4:
        return max(20, (packet[0] & 15) * 4)
    return 40


def _run(data: bytes) -> list[str]:
    """Octets, the counting ones told as such."""
    lines: list[str] = []
    plain_from = at = 0
    while at < len(data):
        run = _counting_run(data, at)
        if run >= SHORTEST_RUN:
            lines += _plain(data[plain_from:at])
            lines.append(f"  counting {run} from {data[at]}")
            plain_from = at = at + run
        else:
            at += 1
    return lines + _plain(data[plain_from:])


def _counting_run(data: bytes, at: int) -> int:
    end = at + 1
    while end < len(data) and data[end] == (data[end - 1] + 1) % 251 and data[end - 1] < 251:
        end += 1
    return end - at


def _plain(data: bytes) -> list[str]:
    return [f"  {data[at : at + 32].hex(' ')}" for at in range(0, len(data), 32)]


_TITLE = re.compile(r"== (\S+) ==")
_COUNTING = re.compile(r"counting (\d+) from (\d+)")
_HEX = re.compile(r"((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  .*)?$")


def read(text: str) -> list[Case]:
    """The vectors of a file."""
    cases: list[Case] = []
    target = bytearray()
    finish: list[tuple[Case, str, str, bytearray]] = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if title := _TITLE.fullmatch(line):
            cases.append(Case(title[1], ""))
        elif line.startswith("  "):
            target += _read_octets(line.strip())
        else:
            word, _, value = line.partition(" ")
            target = bytearray()
            _read_word(cases[-1], word, value, target, finish)
    for case, word, value, octets in finish:
        if word == "frame":
            case.frames.append(bytes(octets))
        elif word == "message":
            case.message = bytes(octets)
        else:
            getattr(case, word).append((value, bytes(octets)))
    return cases


def _read_word(
    case: Case, word: str, value: str, target: bytearray, finish: list[tuple[Case, str, str, bytearray]]
) -> None:
    if word in {"frame", "message", "forward", "unseen"}:
        finish.append((case, word, value, target))
    elif word == "expect":
        case.expect, *reasons = value.split()
        case.reasons = tuple(reasons)
    elif word == "outer":
        case.outer = int(value)
    else:
        assert word in {"rfc", "choice", "link", "left", "needs", "counted"}, f"{case.name}: unknown word {word}"
        setattr(case, word, value)


def _read_octets(text: str) -> bytes:
    if run := _COUNTING.fullmatch(text):
        return counting(int(run[1]), int(run[2]))
    octets = _HEX.match(text)
    assert octets, f"not octets: {text}"
    return bytes.fromhex(octets[1])
