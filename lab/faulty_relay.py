"""A relay with faults on demand: a UDP proxy between gateways and a real relay, told over a Unix socket what to spoil.

Every gateway gets a socket of its own towards the relay, which therefore sees as many gateways as there are. One line
of JSON sets the faults of `lab.faults.Faults`, those not named being off; `{"forget": true}` besides renews the sockets
towards the relay, which makes every gateway a stranger to it, as its restart would. The answer is one line of counters.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from agent.protocol.channels import Address, Endpoint
from agent.protocol.wire.amt import PORT
from lab.faults import Disturbance, Faults

_MOST_GATEWAYS: Final = 256
_RECEIVE_BUFFER: Final = 4 << 20
_IPV6_FREEBIND: Final = 78
_IP_FREEBIND: Final = 15


def tell(control: Path, **faults: object) -> dict[str, int]:
    """Set the faults of a running proxy and get its counters.

    Raises:
        ValueError: the proxy refused them.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5.0)
        connection.connect(str(control))
        connection.sendall(json.dumps(faults).encode() + b"\n")
        answer = json.loads(connection.makefile().readline())
    if "error" in answer:
        raise ValueError(answer["error"])
    counters: dict[str, int] = answer
    return counters


def bound(endpoint: Endpoint | None, family: int, *, foreign: bool = False) -> socket.socket:
    """A non-blocking UDP socket bound to `endpoint`; `foreign` allows an address this host does not have."""
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    if foreign:
        level, option = (0, _IP_FREEBIND) if family == socket.AF_INET else (41, _IPV6_FREEBIND)
        opened.setsockopt(level, option, 1)
    if endpoint is not None:
        opened.bind((str(endpoint.address), endpoint.port))
    return opened


class FaultyRelay:
    """The proxy.

    Attributes:
        counters: messages seen and delivered, by direction.
    """

    def __init__(self, address: Address, relay: Address, stranger: Address, control: Path, port: int = PORT) -> None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self.counters: Counter[str] = Counter(from_gateway=0, to_relay=0, from_relay=0, to_gateway=0)
        self._family = family
        self._relay = (str(relay), port)
        self._address = address
        self._faults = Faults()
        self._selector = selectors.DefaultSelector()
        self._front = bound(Endpoint(address, port), family)
        self._stranger = bound(Endpoint(stranger, port), family, foreign=True)
        self._backs: dict[Any, tuple[socket.socket, Disturbance]] = {}
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.unlink(missing_ok=True)
        self._control.bind(str(control))
        self._control.listen()
        self._watch(self._front, self._from_gateway)
        self._watch(self._control, self._from_control)

    def _watch(self, source: socket.socket, callback: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, callback)

    def run(self) -> None:
        """Serve until interrupted."""
        try:
            while True:
                for key, _ in self._selector.select():
                    key.data()
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close every socket."""
        self._forget()
        self._selector.close()
        for opened in (self._front, self._stranger, self._control):
            opened.close()

    def _from_gateway(self) -> None:
        for data, gateway in _drain(self._front):
            self.counters["from_gateway"] += 1
            if gateway not in self._backs and len(self._backs) >= _MOST_GATEWAYS:
                continue
            back, disturbance = self._backs.get(gateway) or self._new_gateway(gateway)
            for message in disturbance.towards_relay(data):
                self.counters["to_relay"] += 1
                with contextlib.suppress(OSError):
                    back.send(message)

    def _new_gateway(self, gateway: Any) -> tuple[socket.socket, Disturbance]:  # noqa: ANN401 - an address of either family
        back = bound(Endpoint(self._address, 0), self._family)
        back.connect(self._relay)
        disturbance = Disturbance(self._address, seed=len(self._backs))
        disturbance.faults = self._faults
        self._backs[gateway] = back, disturbance
        self._watch(back, lambda: self._from_relay(gateway))
        return back, disturbance

    def _from_relay(self, gateway: Any) -> None:  # noqa: ANN401 - an address of either family
        if gateway not in self._backs:  # forgotten between select and now
            return
        back, disturbance = self._backs[gateway]
        for data, _ in _drain(back):
            self.counters["from_relay"] += 1
            for message in disturbance.towards_gateway(data):
                self.counters["to_gateway"] += 1
                with contextlib.suppress(OSError):
                    (self._stranger if self._faults.other_address else self._front).sendto(message, gateway)

    def _from_control(self) -> None:
        connection, _ = self._control.accept()
        with connection:
            connection.settimeout(1.0)
            try:
                answer: dict[str, object] = dict(self._obey(connection.makefile().readline()))
            except (ValueError, TypeError, OSError) as error:
                answer = {"error": str(error)}
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(answer).encode() + b"\n")

    def _obey(self, line: str) -> Counter[str]:
        values = json.loads(line)
        forget = values.pop("forget", False)
        self._faults = Faults.from_json(values)
        for _, disturbance in self._backs.values():
            disturbance.faults = replace(self._faults)
        if forget:
            self._forget()
        return self.counters

    def _forget(self) -> None:
        for back, _ in self._backs.values():
            self._selector.unregister(back)
            back.close()
        self._backs.clear()


def _drain(opened: socket.socket) -> list[tuple[bytes, Any]]:
    received: list[tuple[bytes, Any]] = []
    for _ in range(64):
        try:
            received.append(opened.recvfrom(65535))
        except (BlockingIOError, ConnectionError):
            break
    return received
