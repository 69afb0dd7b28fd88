"""`relaymgr profile`: addresses and tokens of managers, kept in a file only its owner can read."""
# ruff: noqa: D301 - click reads \b in docstrings as "do not wrap"

from __future__ import annotations

from pathlib import Path

import click

from relaymgr.cli.credentials import read_secret
from relaymgr.cli.failure import EXIT_USAGE, Failure
from relaymgr.cli.options import HELP, as_json, open_target
from relaymgr.cli.output import print_json, print_pairs, print_table
from relaymgr.cli.profiles import Profile, Profiles, profile_path, read_profiles, valid_name, write_profiles
from relaymgr.cli.target import Target, checked_url, read_token


@click.group(context_settings=HELP)
def profile() -> None:
    """Addresses and tokens of managers, in a file with mode 0600.

    The file is ISTHMUS_PROFILE_FILE, else ~/.config/isthmus/profiles.toml. Flags and ISTHMUS_URL come before it.

    \b
    Example:
      relaymgr profile set noc --url https://relaymgr.example.net
      relaymgr profile use noc
      relaymgr relay list
      relaymgr relay list --profile lab
    """


@profile.command("set")
@click.argument("name")
@click.option("--url", "--manager", "url", metavar="URL", help="Address of the manager; required for a new profile.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="File with the token, - for standard input; else it is asked for.",
)
@click.option("--no-token", is_flag=True, help="Keep no token; ISTHMUS_TOKEN or --token-file then give it.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Authority to trust.")
@click.option("--no-check", is_flag=True, help="Do not ask the manager whether the token is good.")
def set_profile(
    name: str, url: str | None, token_file: Path | None, no_token: bool, ca_file: Path | None, no_check: bool
) -> None:
    """Add or replace a profile. The first one becomes the one in use.

    \b
    Examples:
      relaymgr profile set noc --url https://relaymgr.example.net
      relaymgr profile set lab --url http://127.0.0.1:8080 --token-file - < token
    """
    if not valid_name(name):
        raise Failure("a profile's name is made of letters, digits, - and _", EXIT_USAGE)
    path = profile_path()
    profiles = read_profiles(path)
    old = profiles.by_name.get(name)
    address = url or (None if old is None else old.url)
    if address is None:
        raise Failure("a new profile needs --url URL", EXIT_USAGE)
    token = None if no_token else read_token(token_file) if token_file else read_secret(None, "token").strip()
    trusted = ca_file.resolve() if ca_file else None if old is None else old.ca_file
    profiles.by_name[name] = Profile(checked_url(address), token, trusted)
    profiles.current = profiles.current or name
    if token is not None and not no_check:
        _greet(profiles.by_name[name])
    write_profiles(path, profiles)
    click.echo(f"wrote {name} to {path}")


@profile.command("list")
@as_json
def list_profiles(as_json: bool) -> None:
    """List profiles, without their tokens.

    \b
    Example:
      relaymgr profile list
    """
    profiles = read_profiles(profile_path())
    documents = [_document(profiles, name) for name in sorted(profiles.by_name)]
    if as_json:
        print_json({"items": documents})
        return
    rows = [
        ("*" if row["current"] else " ", row["name"], row["url"], "yes" if row["has_token"] else "no")
        for row in documents
    ]
    print_table(["", "NAME", "URL", "TOKEN"], rows, "no profiles: relaymgr profile set")


@profile.command("show")
@click.argument("name", required=False)
@as_json
def show_profile(name: str | None, as_json: bool) -> None:
    """Show a profile (the one in use unless named), never its token.

    \b
    Example:
      relaymgr profile show
    """
    profiles = read_profiles(profile_path())
    document = _document(profiles, _known(profiles, name or profiles.current))
    if as_json:
        print_json(document)
        return
    print_pairs(
        [
            ("name", document["name"]),
            ("url", document["url"]),
            ("token", "kept, not shown" if document["has_token"] else None),
            ("ca file", document["ca_file"]),
            ("file", str(profile_path())),
        ]
    )


@profile.command("use")
@click.argument("name")
def use_profile(name: str) -> None:
    """Use a profile from now on.

    \b
    Example:
      relaymgr profile use lab
    """
    profiles = read_profiles(profile_path())
    profiles.current = _known(profiles, name)
    write_profiles(profile_path(), profiles)
    click.echo(f"using {name}")


@profile.command("delete")
@click.argument("name")
def delete_profile(name: str) -> None:
    """Delete a profile and its token from the file; the token itself stays good until it is revoked.

    \b
    Example:
      relaymgr profile delete lab
    """
    profiles = read_profiles(profile_path())
    del profiles.by_name[_known(profiles, name)]
    if profiles.current == name:
        profiles.current = None
    write_profiles(profile_path(), profiles)
    click.echo(f"deleted {name}")


def _greet(candidate: Profile) -> None:
    with open_target(Target(candidate.url, candidate.token, candidate.ca_file)) as manager:
        who = manager.get("/whoami")
    click.echo(f"{candidate.url} knows you as {who['actor']}, {who['role']}")


def _known(profiles: Profiles, name: str | None) -> str:
    if name is None or name not in profiles.by_name:
        known = ", ".join(sorted(profiles.by_name)) or "none"
        raise Failure(f"no profile {name or 'is in use'}; known: {known}", EXIT_USAGE)
    return name


def _document(profiles: Profiles, name: str) -> dict[str, object]:
    found = profiles.by_name[name]
    return {
        "name": name,
        "url": found.url,
        "has_token": found.token is not None,
        "ca_file": None if found.ca_file is None else str(found.ca_file),
        "current": name == profiles.current,
    }
