"""The usage of `wgdctl` and of each of its subcommands."""

from collections.abc import Mapping
from typing import Final

_CONF: Final = "<interface> <configuration filename>"

SYNOPSES: Final[Mapping[str, str]] = {
    "show": "{ <interface> | all | interfaces } [public-key | private-key | listen-port | fwmark "
    "| peers | preshared-keys | endpoints | allowed-ips | latest-handshakes | transfer "
    "| persistent-keepalive | dump | --json]",
    "showconf": "<interface>",
    "set": "<interface> [listen-port <port>] [fwmark <mark>] [private-key <file path>] "
    "[peer <base64 public key> [remove] [preshared-key <file path>] [endpoint <host>:<port>] "
    "[persistent-keepalive <interval seconds>] "
    "[allowed-ips [+|-]<ip1>/<cidr1>[,[+|-]<ip2>/<cidr2>]...] ]...",
    "setconf": _CONF,
    "addconf": _CONF,
    "syncconf": _CONF,
    "genkey": "",
    "genpsk": "",
    "pubkey": "",
    "where": "",
}

_SUMMARIES: Final[Mapping[str, str]] = {
    "show": "show devices and their peers (the default)",
    "showconf": "show a device as a configuration file for setconf",
    "set": "change a device and its peers",
    "setconf": "make a device what a configuration file says",
    "addconf": "add a configuration file to a device",
    "syncconf": "as setconf, without disturbing the peers that stay the same",
    "genkey": "print a new private key",
    "genpsk": "print a new preshared key",
    "pubkey": "print the public key of the private key on stdin",
    "where": "say where devices are looked for, and what was left out",
}

_OPTIONS: Final = """\
Options before the subcommand:
  --uapi-dir DIR           look in DIR before everywhere else
  --sandbox-bundle-id ID   look in the macOS container of ID (repeatable; default: the
                           WireGuard app's)

Environment: WGD_UAPI_DIR (as --uapi-dir), WG_COLOR_MODE=always|never|auto, WG_HIDE_KEYS=never,
WG_ENDPOINT_RESOLUTION_RETRIES=N|infinity
"""


def synopsis(subcommand: str) -> str:
    """Return one line on how to use a subcommand."""
    return f"Usage: wgdctl {subcommand} {SYNOPSES[subcommand]}".rstrip() + "\n"


def overview() -> str:
    """Return how to use `wgdctl`."""
    commands = "".join(f"  {name:9} {_SUMMARIES[name]}\n" for name in SYNOPSES)
    return (
        "Usage: wgdctl [<options>] [<cmd> [<args>]]\n\n"
        f"Subcommands, with the syntax of wg(8):\n{commands}\n{_OPTIONS}"
    )
