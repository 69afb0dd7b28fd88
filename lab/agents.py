"""Our own agents in the lab's namespaces: their configuration, their life, and what their REST interface says."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from lab.namespaces import Lab, LabError, stop, wait_until
from lab.topology import BORDER_UPLINK, RELAY, RELAY_NATIVE

PROGRAM: Final = [str(Path(sys.executable).with_name("amt-agent"))]
_START_SECONDS: Final = 20.0


def relay_configuration(**relay: object) -> str:
    """Configuration of a relay in the relay's namespace; `relay` adds keys to its section."""
    keys: dict[str, object] = {"interfaces": [RELAY_NATIVE], "address": [str(RELAY.ipv4), str(RELAY.ipv6)]}
    return 'role = "relay"\n\n[relay]\n' + _lines(keys | relay)


def gateway_configuration(
    downstream: list[str], relay: str | list[str], *, sections: str = "", **gateway: object
) -> str:
    """Configuration of a gateway on the border; `gateway` adds keys to its section, `sections` whole sections."""
    keys: dict[str, object] = {"uplink": BORDER_UPLINK, "downstream": downstream}
    addresses = _value(relay)
    text = 'role = "gateway"\n\n[gateway]\n' + _lines(keys | gateway)
    return f"{text}\n[[gateway.relay]]\naddress = {addresses}\n\n{sections}"


def _lines(keys: dict[str, object]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in keys.items())


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return f'"{value}"'


@dataclass(frozen=True, slots=True)
class AgentPlace:
    """Where an agent runs and keeps its files.

    Attributes:
        namespace: the network namespace.
        directory: configuration, state, log and API socket live here.
        name: starts the names of those files.
    """

    namespace: str
    directory: Path
    name: str

    @property
    def configuration(self) -> Path:
        """The configuration file."""
        return self.directory / f"{self.name}.toml"

    @property
    def log(self) -> Path:
        """What the agent printed, of all its lives."""
        return self.directory / f"{self.name}.log"

    @property
    def socket(self) -> Path:
        """The REST interface's Unix socket."""
        return self.directory / f"{self.name}.sock"

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.directory / f"{self.name}-state"


class Agent:
    """One `amt-agent run`, restarted as often as wanted."""

    def __init__(self, lab: Lab, place: AgentPlace, configuration: str, *, wrapper: Sequence[str] = ()) -> None:
        """`configuration` lacks state_dir and [api], which `place` gives; `wrapper` is a command that starts it."""
        self.place = place
        self._wrapper = wrapper
        self._lab = lab
        self._process: subprocess.Popen[Any] | None = None
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(place.socket)), base_url="http://agent", timeout=5.0
        )
        place.state.mkdir(parents=True, exist_ok=True)
        self.configure(configuration)

    def configure(self, configuration: str) -> None:
        """Write the configuration file; a running agent reads it on `reload`."""
        for role in ("gateway", "relay"):
            heading = f"[{role}]\n"
            if f'role = "{role}"' in configuration:
                configuration = configuration.replace(heading, f'{heading}state_dir = "{self.place.state}"\n', 1)
        self.place.configuration.write_text(f'{configuration}\n[api]\nlisten = "{self.place.socket}"\n')

    def start(self) -> None:
        """Start the agent and wait until it says that it is ready.

        Raises:
            LabError: it ended, or is not ready in time.
        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the agent."""
        with self.place.log.open("a") as log:
            command = [*self._wrapper, *PROGRAM, "run", "--config", str(self.place.configuration)]
            self._process = self._lab.start(self.place.namespace, *command, stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        """Wait until the agent says that it is ready.

        Raises:
            LabError: it ended, or is not ready in time.
        """
        try:
            wait_until(self._answers, _START_SECONDS, f"{self.place.name} is ready")
        except LabError as error:
            raise LabError(f"{error}\n{self.log_tail()}") from error

    def _answers(self) -> bool:
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            raise LabError(f"{self.place.name} ended with status {status}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(self.place.socket)) != 0:
                return False
        with contextlib.suppress(httpx.TransportError, LabError):
            return bool(self.get("status")["ready"])
        return False

    @property
    def process_id(self) -> int:
        """Process id of the life that runs."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self._process is not None
        return stop(self._process, 10.0)

    def wait(self, seconds: float) -> int:
        """Exit status of an agent that ends by itself."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def reload(self) -> None:
        """SIGHUP."""
        os.kill(self.process_id, signal.SIGHUP)

    def close(self) -> None:
        """End the agent and the connection to it."""
        self._client.close()
        if self._process is not None:
            self.stop()

    def get(self, resource: str) -> Any:  # noqa: ANN401 - JSON
        """What GET /v1/`resource` answers.

        Raises:
            LabError: the agent refused.
            httpx.TransportError: it does not answer.
        """
        answer = self._client.get(f"/v1/{resource}")
        if answer.status_code != httpx.codes.OK:
            raise LabError(f"{self.place.name}: GET {resource}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def ask(self, method: str, resource: str, body: dict[str, object]) -> None:
        """Have the agent do something: PUT or POST of /v1/`resource`.

        Raises:
            LabError: the agent refused.
            httpx.TransportError: it does not answer.
        """
        answer = self._client.request(method, f"/v1/{resource}", json=body)
        if answer.is_error:
            raise LabError(f"{self.place.name}: {method} {resource}: {answer.status_code} {answer.text[:500]}")

    def tunnels(self, state: str = "established") -> list[dict[str, Any]]:
        """Tunnels in a state."""
        return [tunnel for tunnel in self.get("tunnels")["items"] if tunnel["state"] == state]

    def channels(self) -> list[dict[str, Any]]:
        """The channels carried."""
        found: list[dict[str, Any]] = self.get("channels")["items"]
        return found

    def log_tail(self) -> str:
        """The end of the log."""
        return self.place.log.read_text()[-4000:] if self.place.log.exists() else ""
