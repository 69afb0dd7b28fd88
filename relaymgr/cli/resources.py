"""What adding, listing, changing and deleting have in common, whatever the resource."""

from __future__ import annotations

from typing import Any

import click

from relaymgr.cli import terminal
from relaymgr.cli.client import Document, Manager, Parameter, segment
from relaymgr.cli.failure import EXIT_USAGE, Failure
from relaymgr.cli.names import identifier
from relaymgr.cli.output import print_json


def given(**members: Any) -> Document:  # noqa: ANN401 JSON
    """The members that are not None."""
    return {name: value for name, value in members.items() if value is not None}


def listing(manager: Manager, collection: str, limit: int, everything: bool, **filters: Parameter) -> Document:
    """A listing as one page."""
    return manager.rows(f"/{collection}", None if everything else limit, **filters).as_document()


def add(manager: Manager, collection: str, document: Document, as_json: bool) -> Document:
    """Make a resource and tell its name and identifier."""
    made: Document = manager.send("POST", f"/{collection}", document).document
    tell(made, "added", as_json)
    return made


def change(manager: Manager, collection: str, word: str, changes: Document, as_json: bool) -> None:
    """Change members of a resource, as it was read a moment ago."""
    if not changes:
        raise Failure("nothing to change: give at least one option", EXIT_USAGE)
    path = f"/{collection}/{segment(identifier(manager, collection, word))}"
    etag = manager.fetch(path).etag
    tell(manager.send("PATCH", path, changes, etag=etag).document, "changed", as_json)


def delete(manager: Manager, collection: str, word: str, yes: bool, warning: str | None = None) -> None:
    """Delete a resource after asking."""
    path = f"/{collection}/{segment(identifier(manager, collection, word))}"
    found = manager.fetch(path)
    name = found.document["name"]
    ask(f"Delete {name}?" if warning is None else f"Delete {name}? {warning}", yes)
    manager.send("DELETE", path, etag=found.etag)
    click.echo(f"deleted {name}")


def tell(document: Document, done: str, as_json: bool) -> None:
    """What became of a write."""
    if as_json:
        print_json(document)
    else:
        click.echo(f"{done} {document['name']} ({document['id']})")


def ask(question: str, yes: bool) -> None:
    """Go on only when somebody says yes; without a terminal only with --yes. The question goes to standard error."""
    if yes:
        return
    if not terminal.somebody_there():
        raise Failure(f"{question} Nobody to ask: say --yes.", EXIT_USAGE)
    if not click.confirm(question, err=True):
        raise Failure("nothing was done")
