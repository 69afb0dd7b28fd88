"""FRR in the lab's namespaces: zebra, staticd, pimd and pim6d, with every file in a directory of their own.

The daemons start without a configuration and are given it by vtysh, as Debian's FRR does at boot.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lab import topology
from lab.frr_installation import DAEMONS, FrrInstallation
from lab.namespaces import Lab, LabError, in_namespace, stop, wait_until
from lab.topology import Topology

_USER: Final = "frr"
_RUNTIME_DIRECTORY: Final = Path("/run/frr")  # where mgmtd's sockets are, whatever it is told
_START_SECONDS: Final = 10.0
_WORD: Final = {4: "ip", 6: "ipv6"}


def missing_for_frr(*daemons: str) -> list[str]:
    """What this machine lacks for FRR with these daemons, or those for IPv4, in words; empty when it can be run."""
    return FrrInstallation.chosen().missing(daemons or DAEMONS)


class FrrRouter:
    """FRR in one namespace.

    Attributes:
        namespace: where it runs.
        log: what its daemons printed, of all their lives.
    """

    def __init__(
        self,
        lab: Lab,
        namespace: str,
        directory: Path,
        configuration: str,
        *,
        daemons: tuple[str, ...] = DAEMONS,
        installation: FrrInstallation | None = None,
    ) -> None:
        """Prepare it; nothing runs yet.

        Args:
            lab: the running lab.
            namespace: a namespace of it.
            directory: where the log goes.
            configuration: the text of an frr.conf.
            daemons: which to run, in the order to start them.
            installation: whose; the chosen one by default.
        """
        self._installation = installation or FrrInstallation.chosen()
        self._daemons = daemons
        self.namespace = namespace
        self.log = directory / f"frr-{namespace}.log"
        self._lab = lab
        self._configuration = configuration
        self._processes: dict[str, subprocess.Popen[Any]] = {}
        self._files: Path | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def start(self) -> None:
        """Start the daemons and wait until they took the configuration.

        Raises:
            LabError: FRR is not here, or a daemon ended or refused a line.
        """
        if missing := self._installation.missing(self._daemons):
            raise LabError(f"FRR needs {', '.join(missing)}")
        # Sockets are made by user frr, which cannot reach the private directories tests and root's commands have.
        self._files = Path(tempfile.mkdtemp(prefix="isl-frr-", dir=self._parent()))
        shutil.chown(self._files, _USER, _USER)
        self._files.chmod(0o755)
        (self._files / "vtysh.conf").touch()
        try:
            for daemon in self._installation.started(self._daemons):
                self._start_daemon(daemon)
            self.configure(self._configuration)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every daemon and remove their files; safe to call twice."""
        for process in reversed(self._processes.values()):
            stop(process)
        self._processes.clear()
        if self._files is not None:
            shutil.rmtree(self._files, ignore_errors=True)
            self._files = None

    def stop(self, daemon: str) -> None:
        """End one daemon as an operator would: pimd says goodbye to its neighbours."""
        stop(self._processes.pop(daemon))

    def kill(self, daemon: str) -> None:
        """End one daemon as a crash would."""
        process = self._processes.pop(daemon)
        process.kill()
        process.wait()

    def restart(self, daemon: str) -> None:
        """End one daemon, if it runs, start it again, and give it its part of the configuration."""
        if daemon in self._processes:
            self.stop(daemon)
        self._start_daemon(daemon)
        self.configure(self._configuration, daemon)

    def configure(self, configuration: str, daemon: str | None = None) -> None:
        """Add lines to the running configuration.

        Args:
            configuration: lines of an frr.conf.
            daemon: the only daemon to tell them.

        Raises:
            LabError: a line was refused.
        """
        path = self._directory / "frr.conf"
        path.write_text(configuration)
        path.chmod(0o644)
        self._vtysh(*(("-d", daemon) if daemon else ()), "-f", str(path))

    def vtysh(self, command: str) -> str:
        """What vtysh prints for a command; several lines are several commands.

        Raises:
            LabError: it failed.
        """
        return self._vtysh("-c", command)

    def json(self, command: str) -> Any:  # noqa: ANN401 - JSON
        """What a `show` command answers in JSON.

        Raises:
            LabError: it failed, or answered no JSON.
        """
        text = self.vtysh(f"{command} json")
        try:
            return json.loads(text)
        except ValueError as error:
            raise LabError(f"{command}: {text[:500]}") from error

    @property
    def vtysh_command(self) -> list[str]:
        """The shell with the options by which it finds these daemons."""
        assert self._installation.vtysh is not None
        where = ["--vty_socket", str(self._directory), "--config_dir", str(self._directory)]
        return [*self._installation.command(self._installation.vtysh), *where]

    def _parent(self) -> Path | None:
        """Where the directory has to be, None for anywhere."""
        if not self._installation.is_managed:
            return None
        if not _RUNTIME_DIRECTORY.exists():
            _RUNTIME_DIRECTORY.mkdir(parents=True)
            shutil.chown(_RUNTIME_DIRECTORY, _USER, _USER)
        return _RUNTIME_DIRECTORY

    @property
    def _path_space(self) -> list[str]:
        return ["-N", self._directory.name] if self._installation.is_managed else []

    @property
    def _directory(self) -> Path:
        if self._files is None:
            raise LabError(f"FRR in {self.namespace} does not run")
        return self._files

    def _vtysh(self, *arguments: str) -> str:
        done = self._lab.run(self.namespace, *self.vtysh_command, *arguments, check=False)
        refused = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("% ", "line "))]
        if done.returncode != 0 or refused:
            raise LabError(f"vtysh {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def _start_daemon(self, daemon: str) -> None:
        directory = self._directory
        socket = directory / f"{daemon}.vty"
        with contextlib.suppress(FileNotFoundError):
            socket.unlink()
        options = [
            *("--vty_socket", str(directory), "-i", str(directory / f"{daemon}.pid"), "-P", "0"),
            *("-z", str(directory / "zserv.api"), "--log", "stdout", "--log-level", "notifications"),
            *self._path_space,
            *(("-f", "/dev/null") if self._installation.takes_file(daemon) else ()),
        ]
        command = [*self._installation.command(self._installation.daemon(daemon)), *options]
        with self.log.open("a") as log:
            process = self._lab.start(self.namespace, *command, stdout=log, stderr=subprocess.STDOUT)
        self._processes[daemon] = process

        def answers() -> bool:
            if process.poll() is not None:
                raise LabError(f"{daemon} ended with status {process.returncode}\n{self.log.read_text()[-2000:]}")
            return socket.exists() and self._answers(daemon)

        wait_until(answers, _START_SECONDS, f"{daemon} answers in {self.namespace}")

    def _answers(self, daemon: str) -> bool:
        command = [*self.vtysh_command, "-d", daemon, "-c", "show version"]
        done = subprocess.run(in_namespace(self.namespace, command), capture_output=True, check=False)
        return done.returncode == 0


@dataclass(frozen=True, slots=True)
class PimTimers:
    """Timers of pimd that make waiting in tests short.

    Attributes:
        hello: seconds between Hellos.
        join_prune: seconds between periodic Joins, 5 at least.
        query: seconds between IGMP queries.
    """

    hello: int = 1
    join_prune: int = 5
    query: int = 4


def pim_interface(name: str, timers: PimTimers, *, igmp: bool = False, family: int = 4) -> str:
    """Lines that make PIM, and IGMP or MLD for hosts, run on an interface."""
    word = _WORD[family]
    lines = [f"interface {name}", f" {word} pim", f" {word} pim hello {timers.hello} {timers.hello * 3 + 1}"]
    if igmp:
        asked = f" {word} {'igmp' if family == 4 else 'mld'}"
        lines += [asked, f"{asked} query-max-response-time 10", f"{asked} query-interval {timers.query}"]
    return "\n".join([*lines, "exit", ""])


def domain_router(
    lab: Topology,
    index: int,
    *,
    timers: PimTimers | None = None,
    upstream: topology.Address | None = None,
    family: int = 4,
) -> str:
    """Configuration of the domain's router `index`, from 1.

    Args:
        lab: the topology.
        index: which one; the last one has the receivers.
        timers: of PIM and IGMP or MLD.
        upstream: the neighbour its routes to external sources lead to; the border, or the router above.
        family: IP version, 4 for pimd or 6 for pim6d.
    """
    timers, word = timers or PimTimers(), _WORD[family]
    above = topology.border_downstream(0) if index == 1 else topology.router_downstream(index - 1)
    external = next(prefix for prefix in topology.EXTERNAL_PREFIXES if ip_network(prefix).version == family)
    return "\n".join(
        (
            f"hostname {lab.routers()[index - 1]}",
            f"{word} pim join-prune-interval {timers.join_prune}",
            f"{word} route {external} {(upstream or above).of(family)}",
            pim_interface(topology.ROUTER_UPSTREAM, timers, family=family),
            pim_interface(topology.ROUTER_DOWNSTREAM, timers, igmp=index == lab.routed, family=family),
        )
    )


def border_router(lab: Topology, agent_lines: str, *, timers: PimTimers | None = None, family: int = 4) -> str:
    """Configuration of the border's FRR beside an agent.

    Args:
        lab: the topology.
        agent_lines: what `amt-agent frr-config` prints.
        timers: of PIM and IGMP or MLD.
        family: IP version, 4 for pimd or 6 for pim6d.
    """
    timers = timers or PimTimers()
    interfaces = [pim_interface(name, timers, family=family) for name in ("amt0", *lab.downstream_interfaces)]
    return "\n".join((agent_lines, f"{_WORD[family]} pim join-prune-interval {timers.join_prune}", *interfaces))
