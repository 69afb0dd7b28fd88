"""Command line of the manager; `main` is the program `relaymgr`."""

from __future__ import annotations

from importlib.metadata import version

import click

from relaymgr.cli.ads import ad, site
from relaymgr.cli.backups import backup
from relaymgr.cli.changes import apply, drain, plan, restore, rollback, undrain
from relaymgr.cli.credentials import credential
from relaymgr.cli.drift import accept, drift
from relaymgr.cli.failure import EXIT_HELP
from relaymgr.cli.intents import intent
from relaymgr.cli.jobs import job
from relaymgr.cli.journal import audit, event
from relaymgr.cli.observe import channel, neighbor, statistics, tunnel
from relaymgr.cli.options import HELP
from relaymgr.cli.profile_commands import profile
from relaymgr.cli.relays import relay
from relaymgr.cli.rollouts import rollout
from relaymgr.cli.server import db, serve, worker
from relaymgr.cli.tokens import token
from relaymgr.cli.users import user

_HELP = f"""Configures and monitors AMT relays: Juniper MX, Cisco IOS-XE and IOS, and Isthmus's own.

On the manager's machine:

\b
    relaymgr serve --database-url sqlite:////var/lib/relaymgr/relaymgr.db
    relaymgr token create --role admin --name me --database-url sqlite:////var/lib/relaymgr/relaymgr.db

From anywhere (the address and the token come from flags, ISTHMUS_URL and ISTHMUS_TOKEN, or a profile):

\b
    relaymgr profile set noc --url https://relaymgr.example.net
    relaymgr credential add mx80 --username isthmus
    relaymgr relay add mx1 --platform junos --host mx1.example.net --credential mx80
    relaymgr relay intent put mx1 mx1.yaml
    relaymgr relay plan mx1
    relaymgr relay apply mx1 --confirm-minutes 5
    relaymgr tunnel list --relay mx1

Tokens never are arguments. Where a command takes a name, it takes an identifier too. With --json a command prints what
the REST API answers, and asks nothing.

{EXIT_HELP}
"""


@click.group(help=_HELP, context_settings=HELP)
@click.version_option(version("isthmus"), prog_name="relaymgr")
def main() -> None:
    """Group of all commands; the text above is its help."""


for _command in (plan, apply, drain, undrain, rollback, restore, drift, accept, intent):
    relay.add_command(_command)
for _command in (
    serve,
    worker,
    db,
    token,
    profile,
    ad,
    site,
    credential,
    relay,
    tunnel,
    channel,
    neighbor,
    statistics,
    rollout,
    job,
    backup,
    audit,
    event,
    user,
):
    main.add_command(_command)
