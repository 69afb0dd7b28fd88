"""`python -m lab sim …`: simulated routers from the command line."""

from __future__ import annotations

import click

from lab.sim.ios.command import ios_command
from lab.sim.iosxe.command import iosxe_command
from lab.sim.mx80.command import mx80_command


@click.group("sim")
def sim_group() -> None:
    """Simulated routers on real SSH, for evaluation and tests; never put one on a public address."""


sim_group.add_command(mx80_command)
sim_group.add_command(iosxe_command)
sim_group.add_command(ios_command)
