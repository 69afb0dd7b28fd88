"""`python -m lab sim …`: simulated routers from the command line."""

from __future__ import annotations

import click


@click.group("sim")
def sim_group() -> None:
    """Simulated routers on real SSH, for evaluation and tests; never put one on a public address."""
