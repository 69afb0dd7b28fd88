"""EXEC commands: what is typed at `hostname>` and `hostname#`, and what it does."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.sim.cli_shell import Reply
from lab.sim.iosxe import show_multicast, show_system
from lab.sim.iosxe.device import IosDevice
from lab.sim.iosxe.words import Refusal

if TYPE_CHECKING:
    from lab.sim.iosxe.session import Session

Handler = Callable[["Session", tuple[str, ...]], "Reply | str"]


def _enable(session: Session, _words: tuple[str, ...]) -> Reply | str:
    if session.privilege > 1:
        return ""

    def check(typed: str) -> Reply | str:
        expected = session.device.options.password or ""
        if session.device.may_configure(session.user) and hmac.compare_digest(typed.encode(), expected.encode()):
            session.privilege = 15
            return ""
        return "% Access denied\n\n"

    return session.ask("Password: ", check, secret=True)


def _disable(session: Session, _words: tuple[str, ...]) -> str:
    session.privilege = 1
    return ""


def _exit(_session: Session, _words: tuple[str, ...]) -> Reply:
    return Reply(ends=True)


def _length(session: Session, words: tuple[str, ...]) -> str:
    session.page_length = int(words[-1])
    return ""


def _nothing(_session: Session, _words: tuple[str, ...]) -> str:
    return ""


def _configure_terminal(session: Session, words: tuple[str, ...]) -> str:
    started = ""
    session.check_configurable()
    if "timer" in words:
        started = session.device.begin_revert(int(words[-1]), session.user, session.number, idle="idle" in words)
    return started + session.enter_configuration()


def _confirm(session: Session, _words: tuple[str, ...]) -> Reply:
    session.device.confirm()
    return Reply(commits=True)


def _revert(session: Session, words: tuple[str, ...]) -> Reply | str:
    if words[2] == "now":
        return Reply(session.device.revert_now(session.user), commits=True)
    session.device.change_timer(int(words[-1]), idle="idle" in words)
    return ""


def _replace(session: Session, words: tuple[str, ...]) -> Reply | str:
    text = show_system.stored_file(session.device, words[2])
    done = "Total number of passes: 1\nRollback Done\n\n"

    def obey() -> Reply:
        if not session.device.may_configure(session.user):
            raise Refusal("% Authorization failed.\n")
        session.device.replace(text, session.user)
        return Reply(done, commits=True)

    if "force" in words:
        return obey()
    question = (
        "This will apply all necessary additions and deletions\n"
        "to replace the current running configuration with the\n"
        "contents of the specified configuration file, which is\n"
        "assumed to be a complete configuration, not a partial\n"
        "configuration. Enter Y if you are sure you want to proceed. ? [no]: "
    )
    return session.ask(question, lambda typed: obey() if typed.strip().lower() in {"y", "yes"} else "\n")


def _write(session: Session, _words: tuple[str, ...]) -> Reply:
    session.device.write_memory(session.user)
    return Reply("Building configuration...\n[OK]\n", commits=True)


def _copy(session: Session, _words: tuple[str, ...]) -> Reply:
    def save(_typed: str) -> Reply:
        session.device.write_memory(session.user)
        return Reply("Building configuration...\n[OK]\n", commits=True)

    return session.ask("Destination filename [startup-config]? ", save)


def _archive_config(session: Session, _words: tuple[str, ...]) -> str:
    session.device.archive_now()
    return "\n"


def _show_running(session: Session, words: tuple[str, ...]) -> str:
    device = session.device
    if "interface" not in words:
        return device.printed_configuration()
    section = device.running.section("interface " + words[-1])
    if section is None:
        raise Refusal("                                              ^\n% Invalid input detected at '^' marker.\n")
    body = "\n".join(["!", *section.rendered(), "end"]) + "\n"
    return f"Building configuration...\n\nCurrent configuration : {len(body)} bytes\n{body}\n"


def _show_differences(session: Session, words: tuple[str, ...]) -> str:
    files = words[4:]
    first = files[0] if files else "nvram:startup-config"
    second = files[1] if len(files) > 1 else "system:running-config"
    return show_system.differences(session.device, first, second)


def _show_mroute(session: Session, words: tuple[str, ...]) -> str:
    addresses = tuple(word for word in words[3:] if word != "verbose")
    return show_multicast.mroute(session.device, verbose="verbose" in words, wanted=addresses)


def _named(show: Callable[[IosDevice, str | None], str], length: int) -> Handler:
    def handler(session: Session, words: tuple[str, ...]) -> str:
        return show(session.device, words[length] if len(words) > length else None)

    return handler


def _plain(show: Callable[[IosDevice], str]) -> Handler:
    def handler(session: Session, _words: tuple[str, ...]) -> str:
        return show(session.device)

    return handler


def _show_startup(session: Session, _words: tuple[str, ...]) -> str:
    return session.device.printed_configuration(startup=True)


def _show_groups_detail(session: Session, _words: tuple[str, ...]) -> str:
    return show_multicast.igmp_groups(session.device, detail=True)


def _show_users(session: Session, _words: tuple[str, ...]) -> str:
    return show_system.users(session.device, session.number)


def _show_privilege(session: Session, _words: tuple[str, ...]) -> str:
    return f"Current privilege level is {session.privilege}\n"


COMMANDS: tuple[tuple[str, bool, Handler], ...] = (
    ("enable [<int:0-15>]", False, _enable),
    ("disable", False, _disable),
    ("{exit|logout|quit}", False, _exit),
    ("terminal length <int:0-512>", False, _length),
    ("terminal width <int:0-512>", False, _nothing),
    ("terminal [no] monitor", True, _nothing),
    ("configure terminal", True, _configure_terminal),
    ("configure terminal revert timer [idle] <int:1-120>", True, _configure_terminal),
    ("configure confirm", True, _confirm),
    ("configure revert now", True, _revert),
    ("configure revert timer [idle] <int:1-120>", True, _revert),
    ("configure replace <word> [list] [force]", True, _replace),
    ("write [memory]", True, _write),
    ("copy running-config startup-config", True, _copy),
    ("archive config", True, _archive_config),
    ("clear ip mroute <line>", True, _nothing),
    ("clear ip igmp group [<line>]", True, _nothing),
    ("clear counters [<interface>]", True, _nothing),
    ("show running-config [all|full|brief]", True, _show_running),
    ("show running-config interface <interface>", True, _show_running),
    ("show startup-config", True, _show_startup),
    ("show version", False, _plain(show_system.version)),
    ("show interfaces [<interface>]", False, _named(show_system.interface_status, 2)),
    ("show ip interface brief", False, _plain(show_system.interface_brief)),
    ("show ip access-lists [<word>]", True, _named(show_system.access_lists, 3)),
    ("show ip mroute [<ip>] [<ip>] [verbose]", False, _show_mroute),
    ("show ip mroute count", False, _plain(show_multicast.mroute_count)),
    ("show ip igmp groups", False, _plain(show_multicast.igmp_groups)),
    ("show ip igmp groups detail", False, _show_groups_detail),
    ("show ip igmp membership [all|tracked]", False, _plain(show_multicast.igmp_membership)),
    ("show ip pim neighbor", False, _plain(show_multicast.pim_neighbors)),
    ("show ip pim interface", False, _plain(show_multicast.pim_interfaces)),
    ("show clock [detail]", False, _plain(show_system.clock)),
    ("show archive", True, _plain(show_system.archive)),
    ("show archive config rollback timer", True, _plain(show_system.rollback_timer)),
    ("show archive config differences [<word>] [<word>]", True, _show_differences),
    ("show users", False, _show_users),
    ("show privilege", False, _show_privilege),
)
"""Pattern, whether only a privileged user has it, and what does it."""
