"""What `wgdctl` and each of its subcommands take; the manual and the shells have it from here."""

import textwrap
from typing import Final

from wgd.manual.syntax import Keyword, Option, Subcommand, Takes, Value

_INTERFACE: Final = Value("<interface>", Takes.INTERFACE)
_CONFIGURATION_FILE: Final = Value("<configuration filename>", Takes.FILE)
_QUICK_FILE: Final = Value("<wg-quick configuration filename>", Takes.CONFIGURATION)
_KEY_FILE: Final = Value("<file path>", Takes.FILE)

_CONF: Final = "<interface> <configuration filename>"
_QUICK: Final = "<interface> | <wg-quick configuration filename>"
_FIELDS: Final = (
    *("public-key", "private-key", "listen-port", "fwmark", "peers", "preshared-keys"),
    *("endpoints", "allowed-ips", "latest-handshakes", "transfer", "persistent-keepalive", "dump"),
)
_LEVELS: Final = ("verbose", "info", "error", "silent")

_JSON: Final = Option(("--json",), "print JSON, for programs")

_KEYWORDS: Final = (
    Keyword("listen-port", Value("<port>")),
    Keyword("fwmark", Value("<mark>")),
    Keyword("private-key", _KEY_FILE),
    Keyword("peer", Value("<base64 public key>", Takes.PEER)),
    Keyword("remove", of_peer=True),
    Keyword("preshared-key", _KEY_FILE, of_peer=True),
    Keyword("endpoint", Value("<host>:<port>"), of_peer=True),
    Keyword("persistent-keepalive", Value("<interval seconds>"), of_peer=True),
    Keyword("allowed-ips", Value("[+|-]<ip>/<cidr>"), of_peer=True),
)

SUBCOMMANDS: Final = (
    Subcommand(
        "show",
        f"{{ <interface> | all | interfaces }} [{' | '.join(_FIELDS)} | --json]",
        "show devices and their peers (the default)",
        operands=(
            Value("<interface>", Takes.INTERFACE, ("all", "interfaces")),
            Value("<field>", words=_FIELDS),
        ),
        options=(_JSON,),
    ),
    Subcommand(
        "showconf",
        "<interface>",
        "show a device as a configuration file for setconf",
        operands=(_INTERFACE,),
    ),
    Subcommand(
        "set",
        "<interface> [listen-port <port>] [fwmark <mark>] [private-key <file path>] "
        "[peer <base64 public key> [remove] [preshared-key <file path>] [endpoint <host>:<port>] "
        "[persistent-keepalive <interval seconds>] "
        "[allowed-ips [+|-]<ip1>/<cidr1>[,[+|-]<ip2>/<cidr2>]...] ]...",
        "change a device and its peers",
        operands=(_INTERFACE,),
        keywords=_KEYWORDS,
    ),
    Subcommand(
        "setconf",
        _CONF,
        "make a device what a configuration file says",
        operands=(_INTERFACE, _CONFIGURATION_FILE),
    ),
    Subcommand(
        "addconf",
        _CONF,
        "add a configuration file to a device",
        operands=(_INTERFACE, _CONFIGURATION_FILE),
    ),
    Subcommand(
        "syncconf",
        _CONF,
        "as setconf, without disturbing the peers that stay the same",
        operands=(_INTERFACE, _CONFIGURATION_FILE),
    ),
    Subcommand("genkey", "", "print a new private key"),
    Subcommand("genpsk", "", "print a new preshared key"),
    Subcommand("pubkey", "", "print the public key of the private key on stdin"),
    Subcommand("where", "", "say where devices are looked for, and what was left out"),
    Subcommand(
        "doctor",
        "[<interface>] [--json] [--no-probe] [--config <file>]",
        "say what is wrong with a device and what to try (exit status 2: problems)",
        operands=(_INTERFACE,),
        options=(
            _JSON,
            Option(("--no-probe",), "send no packet and look up no name"),
            Option(
                ("--config",),
                "compare the device with this file (default: /etc/wireguard/INTERFACE.conf)",
                Value("<file>", Takes.FILE),
            ),
        ),
    ),
    Subcommand(
        "up",
        _QUICK,
        "make an interface from its file, as wg-quick(8) does, always on wgd",
        operands=(_QUICK_FILE,),
    ),
    Subcommand("down", _QUICK, "undo what up did", operands=(_QUICK_FILE,)),
    Subcommand(
        "save",
        _QUICK,
        "write the file of an interface anew from what it is now",
        operands=(_QUICK_FILE,),
    ),
    Subcommand(
        "strip",
        _QUICK,
        "print the lines of a file that are for setconf",
        operands=(_QUICK_FILE,),
    ),
    Subcommand(
        "top",
        "[--once] [--interval <seconds>] [<interface>...]",
        "show peers live, with rates and what is wrong; or with --once one table",
        operands=(_INTERFACE,),
        repeats=True,
        options=(
            Option(("--once",), "print one table and end; for scripts, and without a terminal"),
            Option(
                ("--interval",),
                "look again after so many seconds, from 0.1 to 3600 (default: 1)",
                Value("<seconds>"),
            ),
        ),
    ),
    Subcommand(
        "log-level",
        f"<interface> [{' | '.join(_LEVELS)}]",
        "show or change how much a running wgd logs",
        operands=(_INTERFACE, Value("<level>", words=_LEVELS)),
    ),
)

OPTIONS: Final = (
    Option(("--uapi-dir",), "look in DIR before everywhere else", Value("DIR", Takes.DIRECTORY)),
    Option(
        ("--sandbox-bundle-id",),
        "look in the macOS container of ID (repeatable; default: the WireGuard app's)",
        Value("ID"),
    ),
)
"""Those before the subcommand."""

ENVIRONMENT: Final = (
    "WGD_UAPI_DIR (as --uapi-dir), WG_COLOR_MODE=always|never|auto, WG_HIDE_KEYS=never,\n"
    "WG_ENDPOINT_RESOLUTION_RETRIES=N|infinity"
)

_BY_NAME: Final = {subcommand.name: subcommand for subcommand in SUBCOMMANDS}
_WIDTH: Final = 90


def synopsis(subcommand: str) -> str:
    """Return one line on how to use a subcommand."""
    return f"Usage: wgdctl {subcommand} {_BY_NAME[subcommand].synopsis}".rstrip() + "\n"


def explanation(subcommand: str) -> str:
    """Return its synopsis, what it is for, and its options."""
    described = _BY_NAME[subcommand]
    text = synopsis(subcommand) + f"\n{described.summary}\n"
    return text + (f"\n{_table(described.options)}" if described.options else "")


def overview() -> str:
    """Return how to use `wgdctl`."""
    commands = "".join(f"  {each.name:9} {each.summary}\n" for each in SUBCOMMANDS)
    return (
        "Usage: wgdctl [<options>] [<cmd> [<args>]]\n\n"
        f"Subcommands, with the syntax of wg(8):\n{commands}\n"
        f"Options before the subcommand:\n{_table(OPTIONS)}\n"
        f"Environment: {ENVIRONMENT}\n"
    )


def _table(options: tuple[Option, ...]) -> str:
    """Return the options in one column, what they do in another."""
    heads = [
        ", ".join(option.names) + (f" {option.value.name}" if option.value else "")
        for option in options
    ]
    column = 2 + max(map(len, heads)) + 3
    return "".join(
        textwrap.fill(
            option.summary,
            _WIDTH,
            initial_indent=f"  {head}".ljust(column),
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )
        + "\n"
        for head, option in zip(heads, options, strict=True)
    )
