"""wgdctl(8): what `wgdctl --help` has no place for. Subcommands and options come from its usage."""

import re
from collections.abc import Mapping
from typing import Final

from wgd import __version__
from wgd.manual.programs import wgdctl
from wgd.manual.roff import Example, Page, Section, Term
from wgd.manual.syntax import Subcommand
from wgd.manual.wgd_page import option_term, sentence

DATE: Final = "2026-11-22"

_WORD: Final = re.compile(r"<[^<>]+>|--?[a-z-]+|[a-z][a-z-]+")

_MORE: Final[Mapping[str, tuple[str, ...]]] = {
    "show": (
        "Without <interface> (or with `all`) every device is shown, with `interfaces` only their "
        "names. With a field it prints for scripts: a line for each device or peer, values "
        "separated by tabs, and with `all` the interface's name first. Without a field it is for "
        "people, and hides private and preshared keys; --json, `dump` and `showconf` show them.",
    ),
    "set": (
        "With wgd all of it applies or nothing. <file path> may be /dev/stdin; an empty file, such "
        "as /dev/null, removes the key. With a + or - before it a prefix is added to or taken from "
        "the allowed IPs of the peer; without, the list becomes that of the command. Everything "
        "after `peer` is about that peer, up to the next `peer`.",
    ),
    "setconf": ("Peers that are not in the file are removed.",),
    "addconf": ("Nothing is removed.",),
    "syncconf": ("It compares first, and sends only what differs.",),
    "doctor": (
        "See the troubleshooting page of the documentation for all that it may say. Run it on "
        "both ends. The exit status is 0 if there is no problem, 2 if there is one, and 1 if an "
        "interface could not be examined.",
    ),
    "up": (
        "An interface's name means /etc/wireguard/<interface>.conf. Starts wgd(8), with what its "
        "environment variables say, and sets keys and peers, addresses, MTU, routes (with policy "
        "routing for a default route) and DNS; hooks run as with wg-quick(8). If a step fails, "
        "everything before it is undone. Linux only.",
    ),
    "down": (
        "Goes by the journal that `up` has written, also after the daemon was killed; without "
        "one, by the file.",
    ),
    "save": ("Also done by `down` if the file says `SaveConfig = true`.",),
    "top": (
        "Press ? for the keys: s sorts, / filters, i chooses an interface, p pauses, q quits. "
        "Without root it shows the interfaces whose `wgd --metrics unix` socket you may open. "
        "The live screen needs the Python package textual.",
    ),
    "log-level": (
        "`wgd` starts with what `LOG_LEVEL` says. The change lasts until the daemon ends.",
    ),
}

_ENVIRONMENT: Final = (
    Term("`WGD_UAPI_DIR`", ("The same as --uapi-dir.",)),
    Term(
        "`WG_COLOR_MODE`=`always`|`never`|`auto`",
        ("Whether output for people is coloured; `auto`, the default: on a terminal.",),
    ),
    Term("`WG_HIDE_KEYS=never`", ("Let `show` print keys to people, too.",)),
    Term(
        "`WG_ENDPOINT_RESOLUTION_RETRIES`=<n>|`infinity`",
        ("How often an endpoint's host name is looked up again, with growing pauses.",),
    ),
    Term(
        "`LOG_LEVEL`, `WGD_USER`, `WGD_METRICS` and others of wgd(8)",
        ("Count for the daemon that `up` starts.",),
    ),
)

_FILES: Final = (
    Term(
        "/etc/wireguard/<interface>.conf",
        ("Where `up`, `down`, `save` and `strip` look for a name. It holds keys: mode 0600.",),
    ),
    Term("/run/wgd/<interface>.json", ("The journal of `up`. No keys.",)),
    Term(
        "/run/wgd/<interface>.sock",
        ("Where `top` and `doctor` look without root, and in /run/wgd/<interface>/.",),
    ),
    Term(
        "/var/run/wireguard/<interface>.sock",
        ("The UAPI sockets; `wgdctl where` lists all places.",),
    ),
)

_EXAMPLES: Final = (
    "Make a key pair:",
    Example(("(umask 077 && wgdctl genkey > private.key)", "wgdctl pubkey < private.key")),
    "Add a peer to a running interface, and remove it again:",
    Example(
        (
            "wgdctl set wg0 peer PUBLIC-KEY endpoint 192.0.2.7:51820 allowed-ips 10.0.0.2/32",
            "wgdctl set wg0 peer PUBLIC-KEY remove",
        )
    ),
    "Take over a changed configuration file without disturbing the peers that stay:",
    Example(("bash -c 'wgdctl syncconf wg0 <(wgdctl strip wg0)'",)),
    "See what is wrong:",
    Example(("wgdctl doctor wg0",)),
)


def page() -> Page:
    """Return wgdctl(8)."""
    program = wgdctl()
    return Page(
        "wgdctl",
        "show and set up userspace WireGuard interfaces",
        DATE,
        __version__,
        (
            Section("SYNOPSIS", ("`wgdctl` [<options>] [<subcommand> [<arguments>]]",)),
            Section(
                "DESCRIPTION",
                (
                    "`wgdctl` takes the commands and words of wg(8) and wg-quick(8), and prints "
                    "what these print. It sees every userspace WireGuard daemon of this machine: "
                    "wgd(8), wireguard-go and others with a UAPI socket, on macOS also those in "
                    "the container of a sandboxed app. It does not see the kernel's interfaces.",
                    "Without a subcommand it does `show`. What needs the UAPI socket needs root.",
                ),
            ),
            Section("OPTIONS", tuple(map(option_term, program.options))),
            Section("SUBCOMMANDS", tuple(map(_term, program.subcommands))),
            Section("ENVIRONMENT", _ENVIRONMENT),
            Section("FILES", _FILES),
            Section(
                "EXIT STATUS",
                (
                    "0, or 1 after an error or a wrong usage, with one line on stderr; 2 for "
                    "problems that `doctor` has found; 128 and the number of the signal when "
                    "stopped by Ctrl-C or by a pipe that is no longer read.",
                ),
            ),
            Section("EXAMPLES", _EXAMPLES),
            Section("SEE ALSO", ("wgd(8), wg(8), wg-quick(8)",)),
        ),
    )


def _term(subcommand: Subcommand) -> Term:
    """Return a subcommand with its options."""
    words = _WORD.sub(
        lambda found: found[0] if found[0].startswith("<") else f"`{found[0]}`", subcommand.synopsis
    )
    return Term(
        f"`{subcommand.name}` {words}".rstrip(),
        (sentence(subcommand.summary), *_MORE.get(subcommand.name, ())),
        tuple(map(option_term, subcommand.options)),
    )
