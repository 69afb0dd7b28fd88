"""`relaymgr relay intent`: what a relay shall be, as a YAML or JSON file, with its ETag."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import yaml

from relaymgr.cli.client import Document, Manager, segment
from relaymgr.cli.differences import print_diff
from relaymgr.cli.failure import EXIT_USAGE, Failure
from relaymgr.cli.names import identifier
from relaymgr.cli.options import HELP, as_json, manager_options
from relaymgr.cli.output import print_json

_ETAG: Final = re.compile(r'^# etag: ("[^"\s]{1,64}")\s*$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class IntentFile:
    """An intent as read from a file."""

    intent: Document
    etag: str | None
    """The ETag it was read with, where the file still carries it."""


@click.group(context_settings=HELP)
def intent() -> None:
    """What a relay shall be. Nothing reaches the device before a plan of it is applied.

    \b
    Edit it with a guard against somebody else's edit (the file carries the ETag it was read with):
      relaymgr relay intent get mx1 > mx1.yaml
      $EDITOR mx1.yaml
      relaymgr relay intent put mx1 mx1.yaml
      relaymgr relay apply mx1
    """


@intent.command("get")
@click.argument("relay")
@as_json
@manager_options
def get_intent(manager: Manager, relay: str, as_json: bool) -> None:
    """Print a relay's intent as YAML that `intent put` takes, with the ETag in its first lines.

    \b
    Examples:
      relaymgr relay intent get mx1 > mx1.yaml
      relaymgr relay intent get mx1 --json | jq .intent.inet
    """
    answer = manager.fetch(f"/relays/{segment(identifier(manager, 'relays', relay))}/intent")
    if as_json:
        print_json(answer.document)
        return
    if answer.document["intent"] is None:
        raise Failure(f"{relay} was never given an intent: relaymgr relay intent put {relay} FILE")
    click.echo(as_yaml(answer.document["intent"], answer.etag), nl=False)


@intent.command("put")
@click.argument("relay")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--etag", metavar="ETAG", help="ETag the edit is based on, such as '\"3\"'; else the one in the file.")
@as_json
@manager_options
def put_intent(manager: Manager, relay: str, file: Path, etag: str | None, as_json: bool) -> None:
    """Give a relay its intent from a YAML or JSON file (- for standard input), and show what changes.

    An ETag in the file or in --etag is checked: if somebody changed the intent since, nothing is written. Without
    one, the intent that is there now is replaced.

    \b
    Examples:
      relaymgr relay intent put mx1 mx1.yaml
      jq '.intent.tunnel_limit = 5000' mx1.json | relaymgr relay intent put mx1 -
    """
    given = read_intent(file)
    path = f"/relays/{segment(identifier(manager, 'relays', relay))}/intent"
    before = manager.fetch(path)
    after = manager.send("PUT", path, given.intent, etag=etag or given.etag or before.etag)
    if as_json:
        print_json(after.document)
        return
    if after.document["version"] == before.document["version"]:
        click.echo(f"unchanged, version {after.document['version']}")
        return
    print_diff(difference(before.document["intent"], after.document["intent"]))
    click.echo(
        f"{relay} has intent version {after.document['version']}; see what it would do: relaymgr relay plan {relay}"
    )


def read_intent(path: Path) -> IntentFile:
    """An intent from YAML or JSON: alone, or as the API answers it with its version."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Failure(f"cannot read {path}: {reason}", EXIT_USAGE) from None
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader of our own
    except yaml.YAMLError as error:
        raise Failure(f"{path} is neither YAML nor JSON: {error}", EXIT_USAGE) from None
    if not isinstance(document, dict):
        raise Failure(f"{path} does not hold an intent", EXIT_USAGE)
    marked = _ETAG.search(text)
    etag = marked[1] if marked else None
    if "intent" in document and "version" in document:
        etag = f'"{document["version"]}"'
        document = document["intent"]
        if not isinstance(document, dict):
            raise Failure(f"{path} does not hold an intent", EXIT_USAGE)
    return IntentFile(document, etag)


def as_yaml(intent: Document, etag: str | None) -> str:
    """An intent as YAML without members that are not set, led by its ETag."""
    head = (
        ""
        if etag is None
        else f"# Checked by `intent put`: who changed the intent meanwhile is not overwritten.\n# etag: {etag}\n"
    )
    return head + _dumped(intent)


def difference(before: Document | None, after: Document) -> str:
    """A unified diff of two intents as YAML."""
    old, new = ([] if one is None else _dumped(one).splitlines() for one in (before, after))
    return "\n".join(difflib.unified_diff(old, new, "intent before", "intent now", lineterm=""))


def _dumped(intent: Document) -> str:
    return str(yaml.safe_dump(_set(intent), sort_keys=False, allow_unicode=True, width=120))


def _set(value: Any) -> Any:  # noqa: ANN401 JSON
    if isinstance(value, dict):
        return {key: _set(member) for key, member in value.items() if member is not None}
    return [_set(member) for member in value] if isinstance(value, list) else value


class _Loader(yaml.SafeLoader):
    """YAML with JSON's scalars: `yes` is a text, 1:20 no number; a member given twice is refused."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 PyYAML reads it from the class

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are texts and differ."""
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("bool", r"^(?:true|false)$", ["t", "f"]),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", list("-0123456789")),
    ("float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
