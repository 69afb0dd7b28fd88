"""Which FRR the lab runs: this machine's, or the files of another one, as FRR 10 on Debian 12, which has no pim6d.

To have FRR 10 beside Debian 12's: give apt-get a sources list of trixie by `-o Dir::Etc::sourcelist=`, with
`Dir::Etc::sourceparts=-` and a `Dir::State::lists`, `Dir::State::status` and `Dir::Cache` of its own; then
`apt-get download` frr and all it depends on down to libc6, `dpkg-deb -x` each into one directory that user frr can
read, and name that in ISTHMUS_FRR. Its programs are started by the loader found there; mgmtd starts first, and keeps
its sockets in /run/frr.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "ISTHMUS_FRR"
"""Names the directory whose usr/lib/frr and usr/bin/vtysh are used instead of this machine's."""

DAEMONS: Final = ("zebra", "staticd", "pimd")
MANAGEMENT: Final = "mgmtd"
"""FRR 10's keeper of configurations, which starts before the others."""
_WITHOUT_FILE: Final = frozenset({MANAGEMENT, "staticd"})  # with mgmtd, which gives them their configuration


@dataclass(frozen=True, slots=True)
class FrrInstallation:
    """FRR's programs.

    Attributes:
        root: what "/" is to them; `None` for this machine's own.
    """

    root: Path | None = None

    @classmethod
    def chosen(cls) -> FrrInstallation:
        """The one the environment names, or this machine's."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named).absolute() if named else None)

    def daemon(self, name: str) -> Path:
        """Where a daemon is, or would be."""
        return (self.root or Path("/")) / "usr/lib/frr" / name

    @property
    def vtysh(self) -> Path | None:
        """Where vtysh is."""
        if self.root is not None:
            path = self.root / "usr/bin/vtysh"
            return path if path.exists() else None
        found = shutil.which("vtysh")
        return Path(found) if found else None

    @property
    def is_managed(self) -> bool:
        """Whether mgmtd keeps the configuration."""
        return self.daemon(MANAGEMENT).exists()

    def missing(self, daemons: tuple[str, ...] = DAEMONS) -> list[str]:
        """What it lacks, in words; empty when these daemons can be run."""
        names = [f"{name} (FRR 10)" if name == "pim6d" else str(self.daemon(name)) for name in daemons]
        lacking = [name for name, daemon in zip(names, daemons, strict=True) if not self.daemon(daemon).exists()]
        return lacking + ([] if self.vtysh else ["vtysh"])

    def started(self, daemons: tuple[str, ...]) -> tuple[str, ...]:
        """These daemons and those they need, in the order to start them."""
        return ((MANAGEMENT,) if self.is_managed else ()) + daemons

    def takes_file(self, daemon: str) -> bool:
        """Whether a daemon has the option -f."""
        return not (self.is_managed and daemon in _WITHOUT_FILE)

    def command(self, program: Path) -> list[str]:
        """The start of the command line that runs one of its programs."""
        if self.root is None:
            return [str(program)]
        libraries = next(iter(sorted(self.root.glob("usr/lib/*-linux-gnu"))), None)
        loader = None if libraries is None else next(iter(sorted(libraries.glob("ld-linux-*.so.*"))), None)
        if loader is None:
            return [str(program)]
        return [str(loader), "--library-path", f"{libraries}:{libraries}/frr", str(program)]
