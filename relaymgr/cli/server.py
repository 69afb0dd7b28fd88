"""`relaymgr serve`, `worker` and `db`: what runs on the manager's own machine. Flags mirror `relaymgr.settings`."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Final

import click
from sqlalchemy.exc import SQLAlchemyError

from relaymgr.cli.failure import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, Failure
from relaymgr.cli.options import HELP, as_json
from relaymgr.cli.output import print_json
from relaymgr.cli.settings_options import SECRET_VARIABLES, make_settings, settings_options

_WORKER_NEEDS_NOT: Final = {"listen", "tls_certificate", "tls_key", "allow_clear_text", "session_lifetime_hours"}


def serve_help(text: str) -> str:
    """A help text with the variables that carry secrets."""
    return f"{inspect.cleandoc(text)}\n\n\b\nSecrets only come by environment:\n{SECRET_VARIABLES}"


@click.command(
    help=serve_help(
        """Serve the REST API, run jobs, poll relays; until SIGTERM or SIGINT.

        Every flag can be given as environment variable too: --database-url is ISTHMUS_DATABASE_URL. The database is
        brought up to date first; the first start prints a one-time admin token.

        \b
        Examples:
          relaymgr serve
          relaymgr serve --listen 127.0.0.1:8080 --database-url sqlite:////var/lib/relaymgr/relaymgr.db
          relaymgr serve --listen [::]:8443 --tls-certificate relaymgr.pem --tls-key relaymgr.key
          relaymgr serve --no-poll --database-url postgresql://relaymgr@db.example.net/relaymgr
        """
    )
)
@settings_options()
def serve(**given: Any) -> None:  # noqa: ANN401 values of any setting
    """Serve; the text above is its help."""
    settings = make_settings(**given)
    from relaymgr import service  # noqa: PLC0415 the server's imports cost other commands time

    _run(service.serve(settings))


@click.command(
    help=serve_help(
        """Run jobs and polls without the REST API; until SIGTERM or SIGINT. Needs PostgreSQL.

        Several workers and servers share one database; each job runs once, and what a dead worker held is found.

        \b
        Example:
          relaymgr worker --database-url postgresql://relaymgr@db.example.net/relaymgr --workers 32
        """
    )
)
@settings_options(leave_out=_WORKER_NEEDS_NOT)
def worker(**given: Any) -> None:  # noqa: ANN401 values of any setting
    """Work; the text above is its help."""
    settings = make_settings(**given)
    from relaymgr import service  # noqa: PLC0415 the server's imports cost other commands time

    _run(service.work(settings))


@click.group(context_settings=HELP)
def db() -> None:
    """The manager's database, on its own machine.

    \b
    Example:
      relaymgr db upgrade --database-url sqlite:////var/lib/relaymgr/relaymgr.db
    """


@db.command()
@settings_options("database_url")
def upgrade(**given: Any) -> None:  # noqa: ANN401
    """Bring the schema to what this version needs; changes nothing when it is.

    \b
    Example:
      relaymgr db upgrade --database-url postgresql://relaymgr@db.example.net/relaymgr
    """
    from relaymgr.cli import local  # noqa: PLC0415 the database's imports cost other commands time

    safe_url, revision = _run(local.upgrade(make_settings(**given)))
    click.echo(f"{safe_url} is at revision {revision}")


@db.command()
@settings_options("database_url")
@as_json
def check(as_json: bool, **given: Any) -> None:  # noqa: ANN401
    """Tell whether the database answers and its schema is what this version needs; exits with 1 when not.

    \b
    Example:
      relaymgr db check && systemctl start relaymgr
    """
    from relaymgr.cli import local  # noqa: PLC0415 the database's imports cost other commands time

    safe_url, state = _run(local.check(make_settings(**given)))
    if as_json:
        print_json(
            {
                "database": safe_url,
                "current": state.current,
                "head": state.head,
                "newer": state.newer,
                "up_to_date": state.up_to_date,
            }
        )
    elif state.up_to_date:
        click.echo(f"{safe_url} is up to date, at revision {state.current}")
    else:
        what = "of a later version of relaymgr" if state.newer else "relaymgr db upgrade brings it up to date"
        click.echo(f"{safe_url} is at revision {state.current or '-'}, {state.head} is needed: {what}")
    if not state.up_to_date:
        raise SystemExit(EXIT_FAILED)


def _run(work: Any) -> Any:  # noqa: ANN401 whatever the coroutine returns
    from relaymgr.store.migrations import SchemaUnusable  # noqa: PLC0415
    from relaymgr.store.sealing import KeyUnusable  # noqa: PLC0415

    try:
        return asyncio.run(work)
    except (KeyUnusable, SchemaUnusable, ValueError) as error:  # what the service and the store say of bad settings
        raise Failure(str(error), EXIT_USAGE) from None
    except SQLAlchemyError as error:
        # its text may quote a statement; the driver's own error tells what went wrong
        cause = getattr(error, "orig", None) or type(error).__name__
        raise Failure(f"the database does not answer: {cause}", EXIT_UNREACHABLE) from None
    except OSError as error:
        raise Failure(error.strerror or str(error), EXIT_FAILED) from None


def run_locally(work: Any) -> Any:  # noqa: ANN401 whatever the coroutine returns
    """Run a coroutine that uses the database; its failures end as `Failure`, without passwords."""
    return _run(work)
