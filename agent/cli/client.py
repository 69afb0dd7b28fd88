"""Speaks to a running agent for the command line, and ends the program with one clear line when that fails."""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, NoReturn, ParamSpec

import click
import httpx

EXIT_REFUSED: Final = 1
EXIT_UNREACHABLE: Final = 3
DEFAULT_SOCKET: Final = "/run/isthmus-agent/api.sock"

Parameters = ParamSpec("Parameters")


@dataclass(frozen=True, slots=True)
class Target:
    """Which agent to speak to.

    Attributes:
        socket: unix socket, used when there is no url.
        url: base address such as https://border.example:8443, or None.
        token_file: file with the bearer token.
        ca_file: certificate authority of the agent's certificate, None for the system's.
    """

    socket: str
    url: str | None
    token_file: Path | None
    ca_file: Path | None

    def __str__(self) -> str:
        return self.url or self.socket


class AgentClient:
    """One connection to an agent; every failure prints a line and exits."""

    def __init__(self, target: Target) -> None:
        self._target = target
        headers = {}
        if target.token_file is not None:
            headers["Authorization"] = f"Bearer {_read_token(target.token_file)}"
        if target.url is not None:
            verify: ssl.SSLContext | bool = (
                True if target.ca_file is None else ssl.create_default_context(cafile=str(target.ca_file))
            )
            self._http = httpx.Client(base_url=target.url, headers=headers, verify=verify, timeout=30, trust_env=False)
        else:
            _probe(target)
            transport = httpx.HTTPTransport(uds=target.socket)
            self._http = httpx.Client(transport=transport, base_url="http://agent", headers=headers, timeout=30)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str, **parameters: str | int | bool | None) -> Any:  # noqa: ANN401 JSON
        """The document at /v1/`path`; parameters that are None are left out."""
        given = {key: value for key, value in parameters.items() if value is not None}
        return self._answer("GET", path, params=given).json()

    def send(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        text: str | None = None,
        etag: str | None = None,
    ) -> Any:  # noqa: ANN401 JSON
        """Send a JSON document, or TOML text, and return the document answered, None for an empty answer."""
        headers = {} if etag is None else {"If-Match": etag}
        if text is not None:
            headers["Content-Type"] = "application/toml"
            response = self._answer(method, path, content=text.encode(), headers=headers)
        else:
            response = self._answer(method, path, json=document, headers=headers)
        return response.json() if response.content else None

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 httpx takes many
        response = self._request(method, path, **options)
        if not response.is_success:
            _refused(response)
        return response

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 httpx takes many
        try:
            return self._http.request(method, f"/v1/{path}", **options)
        except httpx.ConnectError as error:
            fail(f"no agent answers on {self._target}: {error}", EXIT_UNREACHABLE)
        except httpx.HTTPError as error:
            fail(f"the agent on {self._target} does not answer: {error or type(error).__name__}", EXIT_UNREACHABLE)


def agent_options(
    command: Callable[Concatenate[AgentClient, Parameters], None],
) -> Callable[..., None]:
    """Give a command the options that say which agent to speak to, and a client as first argument."""

    @wraps(command)
    def with_client(
        socket_path: str,
        url: str | None,
        token_file: Path | None,
        ca_file: Path | None,
        *arguments: Parameters.args,
        **options: Parameters.kwargs,
    ) -> None:
        client = AgentClient(Target(socket_path, url, token_file, ca_file))
        try:
            command(client, *arguments, **options)
        finally:
            client.close()

    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    for option in (
        click.option("--ca-file", type=file, envvar="AMT_AGENT_CA_FILE", help="Authority of the agent's certificate."),
        click.option("--token-file", type=file, envvar="AMT_AGENT_TOKEN_FILE", help="File with the bearer token."),
        click.option("--url", envvar="AMT_AGENT_URL", help="Agent on the network, such as https://border:8443."),
        click.option(
            "--socket",
            "socket_path",
            envvar="AMT_AGENT_SOCKET",
            default=DEFAULT_SOCKET,
            show_default=True,
            help="Unix socket of the agent.",
        ),
    ):
        with_client = option(with_client)
    return with_client


def fail(message: str, status: int = EXIT_REFUSED) -> NoReturn:
    """Print one line on standard error and exit."""
    click.echo(f"amt-agent: {message}", err=True)
    sys.exit(status)


def print_json(document: object) -> None:
    """Print a document for programs."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _probe(target: Target) -> None:
    """Exit unless something listens on the unix socket; httpx would not close its own on a refusal."""
    if not hasattr(socket, "AF_UNIX"):
        fail("this system has no unix sockets: say which agent with --url", 2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(target.socket)
        except PermissionError:
            fail(f"{target} may only be used by root and its group (see [api] socket_group)", EXIT_UNREACHABLE)
        except OSError:
            fail(
                f"no agent answers on {target}: is it running (systemctl status isthmus-agent)? "
                "If its [api] listen is elsewhere, say so with --socket or --url.",
                EXIT_UNREACHABLE,
            )


def _refused(response: httpx.Response) -> NoReturn:
    try:
        problem: Mapping[str, Any] = response.json()
        lines = [f"{problem['detail']} ({problem['code']})"]
        for fault in problem["faults"]:
            where = f"line {fault['line']}: " if fault.get("line") else ""
            lines.append(f"  {where}{fault['key']}: {fault['message']}")
    except (ValueError, KeyError, TypeError):
        lines = [f"answered {response.status_code}: {response.text[:200]}"]
    fail("\n".join(lines))


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read {path}: {error}", 2)
