"""Figures of a session, as lines for people and as JSON for programs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

from agent.media import MediaKind, MediaMonitor
from agent.receive.output import Output
from agent.receive.session import Ending, Session

_UNITS: Final = ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"))


@dataclass(slots=True)
class Progress:
    """Writes one live line to a terminal, one line a call to anything else.

    Attributes:
        stream: where to.
        live: overwrite the line, as on a terminal.
    """

    stream: TextIO
    live: bool
    _shown: int = 0
    _previous: tuple[float, int, int] | None = field(default=None)

    def show(self, session: Session) -> None:
        """Tell how the session is doing since the last call."""
        measurement = session.measurement
        now = time.monotonic()
        then, packets, octets = self._previous or (now - 1.0, 0, 0)
        self._previous = (now, measurement.packets, measurement.payload_bytes)
        if measurement.first_at is None:
            text = f"{session.options.channel} waiting for the first packet"
        else:
            seconds = max(now - then, 1e-3)
            bits = 8 * (measurement.payload_bytes - octets) / seconds
            text = (
                f"{session.options.channel} {_rate(bits)} {(measurement.packets - packets) / seconds:.0f} packets/s, "
                f"{_loss(session)}"
            )
        self._write(text)

    def event(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        self.stream.write(text + "\n")
        self.stream.flush()

    def clear(self) -> None:
        """Take the live line away."""
        if self._shown:
            self.stream.write("\r" + " " * self._shown + "\r")
            self._shown = 0

    def _write(self, text: str) -> None:
        if not self.live:
            self.event(text)
            return
        self.stream.write("\r" + text.ljust(self._shown))
        self.stream.flush()
        self._shown = max(self._shown, len(text))


def summarise(session: Session, ending: Ending, output: Output) -> dict[str, Any]:
    """Everything known about a finished session; rates in bits/s, times in seconds, None where unknown."""
    measurement, options = session.measurement, session.options
    seconds = measurement.seconds()
    first_at = measurement.first_at
    return {
        "source": None if options.channel.source is None else str(options.channel.source),
        "group": str(options.channel.group),
        "port": options.port,
        "ending": ending.name.lower(),
        "relay": None if session.relay is None else str(session.relay),
        "gateway_address": None if session.gateway_address is None else str(session.gateway_address),
        "packets": measurement.packets,
        "payload_bytes": measurement.payload_bytes,
        "seconds": round(seconds, 3),
        "rate": round(8 * measurement.payload_bytes / seconds) if seconds else None,
        "first_packet_after": None if first_at is None else round(first_at - session.started_at, 4),
        "join_latency": None if session.join_latency is None else round(session.join_latency, 4),
        "media": measurement.kind.value,
        "lost": measurement.lost,
        "flows": [
            {"source": str(flow.source), "port": flow.port, **_media(media)}
            for flow, media in measurement.flows.items()
        ],
        "refused": dict(session.packets.refused),
        "unexpected_sender": session.unexpected,
        "fragments": {
            "reassembled": session.packets.reassembler.reassembled,
            "abandoned": session.packets.reassembler.abandoned,
        },
        "output_dropped": output.dropped,
    }


def describe(summary: dict[str, Any]) -> str:
    """The summary in words, a few lines."""
    channel = f"({summary['source'] or '*'},{summary['group']})"
    relay = summary["relay"]
    if summary["packets"]:
        rate = "" if summary["rate"] is None else f", {_rate(summary['rate'])}"
        lost = "loss cannot be told from the payload" if summary["lost"] is None else f"{summary['lost']} lost"
        came = f"{summary['packets']} packets in {summary['seconds']:.1f} s{rate}, {summary['media']}, {lost}"
        lines = [
            f"{channel} through {relay}: {came}",
            f"first packet after {summary['first_packet_after']} s, {summary['join_latency']} s after the join",
        ]
    else:
        lines = [f"{channel}: nothing came" + (f" through {relay}" if relay else ", no relay answered")]
    refused = {**summary["refused"], "unexpected_sender": summary["unexpected_sender"]}
    told = [f"{count} {reason.replace('_', ' ')}" for reason, count in refused.items() if count]
    if told:
        lines.append("refused: " + ", ".join(told))
    if summary["output_dropped"]:
        lines.append(f"{summary['output_dropped']} packets were not written: the output was too slow or not there")
    return "\n".join(lines)


def _media(media: MediaMonitor) -> dict[str, Any]:
    figures: dict[str, Any] = {"media": media.kind.value, "lost": media.lost}
    if media.kind in {MediaKind.MPEG_TS, MediaKind.RTP_MPEG_TS}:
        stream = media.transport_stream
        figures["mpeg_ts"] = {
            "packets": stream.packets,
            "pids": stream.pids,
            "lost": stream.lost,
            "discontinuities": stream.discontinuities,
            "transport_errors": stream.transport_errors,
            "sync_errors": stream.sync_errors,
            "repeated_datagrams": media.repeated_datagrams,
        }
    if media.kind in {MediaKind.RTP, MediaKind.RTP_MPEG_TS}:
        rtp = media.rtp
        figures["rtp"] = {
            "received": rtp.received,
            "lost": rtp.lost,
            "duplicates": rtp.duplicates,
            "reordered": rtp.reordered,
            "restarts": rtp.restarts,
        }
    return figures


def _loss(session: Session) -> str:
    lost = session.measurement.lost
    latency = session.join_latency
    told = f"{session.measurement.kind.value}, " + ("loss unknown" if lost is None else f"{lost} lost")
    return told if latency is None else f"{told}, joined in {1000 * latency:.0f} ms"


def _rate(bits: float) -> str:
    for unit, name in _UNITS:
        if bits >= unit:
            return f"{bits / unit:.2f} {name}"
    return f"{bits:.0f} bit/s"
