"""wgd(8): what `wgd --help` has no place for. The options come from its parser."""

from collections.abc import Mapping
from typing import Final

from wgd import __version__
from wgd.manual.programs import wgd
from wgd.manual.roff import Example, Page, Section, Term
from wgd.manual.syntax import Option

DATE: Final = "2026-11-22"

_MORE: Final[Mapping[str, tuple[str, ...]]] = {
    "--foreground": (
        "Without it the command returns 0 as soon as the interface and its socket exist and can "
        "be configured, and the daemon goes on in the background. Then it logs nothing unless "
        "`LOG_LEVEL` is set.",
    ),
    "--uapi-dir": (
        "wg(8) looks in /var/run/wireguard only; wgdctl(8) takes the same option as wgd.",
    ),
    "--workers": (
        "Each is a thread with a queue of the TUN device and sockets of its own; a single flow "
        "stays on one. Not with `WG_TUN_FD` or a persistent device, which have one queue.",
    ),
    "--no-offload": (
        "Not needed as a rule: an offload that fails is switched off by itself, and one line of "
        "the log says so (`event=offload_off`).",
    ),
    "--config": (
        "The file is that of wg-quick(8), under any name. Its hooks run with the rights of the "
        "daemon: those of `PreUp` and `PostUp` before `--user` takes effect, those of `PreDown` "
        "and `PostDown` after.",
    ),
    "--user": (
        "Nothing can make the daemon root again, also not a replacement by SIGUSR2. What has to "
        "be opened as root is opened before: the TUN device, the sockets, the key log. "
        "CAP_NET_BIND_SERVICE and CAP_NET_BROADCAST are kept, too, where the daemon has them. A "
        "small process, wgd-janitor, remains root to remove the socket files at the end.",
    ),
    "--metrics": (
        "`GET /metrics` is in Prometheus' format, `GET /status` is JSON for `wgdctl top`. Both "
        "show public keys, endpoints and traffic, no secret; nothing can be changed. On a TCP "
        "address whoever can connect can read it: use a loopback address, or a unix socket. "
        "Needs the Python packages h11 and prometheus_client.",
    ),
    "--keylog": (
        "The file is made readable for its owner only, and one that others can read is refused. "
        "In Wireshark: Preferences, Protocols, WireGuard, Key log filename.",
    ),
}

_ENVIRONMENT: Final = (
    Term(
        "`LOG_LEVEL`",
        (
            "What is logged: `verbose` (or `debug`), `info`, `error` (the default), `silent`. "
            "`wgdctl log-level` and SIGUSR1 change it later.",
        ),
    ),
    Term("`WG_PROCESS_FOREGROUND=1`", ("The same as --foreground.",)),
    Term(
        "`WG_TUN_FD`=<n>",
        ("Use the TUN device that is open as descriptor <n>, instead of making one.",),
    ),
    Term(
        "`WG_UAPI_FD`=<n>",
        ("Use the listening UAPI socket that is open as descriptor <n>.",),
    ),
    Term(
        "`WG_TUN_NAME_FILE`=<file>",
        ("macOS: where to write the name that the interface `utun` has become.",),
    ),
    Term(
        "`WGD_UAPI_POLICY`, `WGD_UAPI_DIR`, `WGD_DATAPLANE`, `WGD_WORKERS`, `WGD_CONFIG`, "
        "`WGD_USER`, `WGD_METRICS`, `WGD_METRICS_GROUP`, `WGD_KEYLOG`, `WGD_LOG_FORMAT`",
        ("The same as the options; an option counts more.",),
    ),
    Term("`WGD_NO_OFFLOAD=1`", ("The same as --no-offload.",)),
    Term(
        "`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`",
        ("From systemd(1): where readiness and signs of life are told, see sd_notify(3).",),
    ),
    Term(
        "`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`",
        (
            "From systemd(1), or from the wgd that this one replaces: descriptors from number 3 "
            "on. Named `tun` is the TUN device (one descriptor for each queue), `uapi` the "
            "listening UAPI socket, `state` a memfd with the configuration. With any of them wgd "
            "stays in the foreground.",
        ),
    ),
)

_SIGNALS: Final = (
    Term("SIGINT, SIGTERM", ("End, and take the interface away.",)),
    Term("SIGHUP", ("The same in the foreground; in the background it is ignored.",)),
    Term("SIGUSR1", ("Log everything (`verbose`); the next one: what was logged before.",)),
    Term(
        "SIGUSR2",
        (
            "Linux: go on as the program that is now installed, for upgrades. Process id, "
            "interface, addresses, routes, UAPI socket and configuration stay; peers make new "
            "sessions. If the new program would not start, the old one goes on and the log says "
            "`event=upgrade_refused`.",
        ),
    ),
)

_FILES: Final = (
    Term(
        "/var/run/wireguard/<interface>.sock",
        (
            "The UAPI socket, for root only. wgd ends when it is removed or replaced, and when "
            "the interface is deleted.",
        ),
    ),
    Term(
        "/run/wgd/<interface>.sock",
        (
            "The socket of `--metrics unix`. "
            "That of wgd@.service is /run/wgd/<interface>/<interface>.sock.",
        ),
    ),
    Term(
        "/run/wgd/<interface>.json",
        (
            "With --config: what was done to the system, so that it can be undone. No keys. "
            "/run/wgd must be root's alone; wgd@.service has its own in /run/wgd/<interface>.",
        ),
    ),
    Term("/etc/wireguard/<interface>.conf", ("The configuration that wgd@.service uses.",)),
)

_EXAMPLES: Final = (
    "Make an interface and configure it with the usual tools:",
    Example(
        (
            "wgd wg0",
            "wg setconf wg0 wg0.conf",
            "ip address add 10.0.0.1/24 dev wg0",
            "ip link set wg0 up",
        )
    ),
    "The same from a wg-quick file, as a service of systemd, or by hand:",
    Example(("systemctl enable --now wgd@wg0", "wgdctl up wg0")),
    "As an unprivileged user, with metrics for the group prometheus:",
    Example(
        (
            "wgd --foreground --config /etc/wireguard/wg0.conf --user nobody \\",
            "    --metrics unix --metrics-group prometheus wg0",
        )
    ),
    "Upgrade a running daemon without taking the tunnel down:",
    Example(("pip install --upgrade wgd wgd-native", "systemctl reload wgd@wg0")),
)


def page() -> Page:
    """Return wgd(8)."""
    program = wgd()
    options = tuple(
        option_term(option, *_MORE.get(option.names[-1], ())) for option in program.options
    )
    return Page(
        "wgd",
        "userspace WireGuard daemon",
        DATE,
        __version__,
        (
            Section("SYNOPSIS", (_synopsis(program.options), "`wgd` `--version`")),
            Section(
                "DESCRIPTION",
                (
                    "`wgd` makes the TUN interface <INTERFACE> and serves it as a WireGuard "
                    "interface: one process for one interface. It is configured over its UAPI "
                    "socket with wg(8), wgdctl(8) or any other client of that protocol, or from "
                    "a file with --config. On Linux, wg-quick(8) uses it where the kernel has no "
                    "WireGuard, if `WG_QUICK_USERSPACE_IMPLEMENTATION=wgd` is set; `wgdctl up` "
                    "always does.",
                    "Command line, environment, socket and the way of ending are those of "
                    "wireguard-go. Addresses and routes are not the daemon's business, but for "
                    "--config.",
                ),
            ),
            Section("OPTIONS", options),
            Section("ENVIRONMENT", _ENVIRONMENT),
            Section("SIGNALS", _SIGNALS),
            Section("FILES", _FILES),
            Section(
                "EXIT STATUS",
                (
                    "In the background: 0 when the interface can be configured, 1 with one line "
                    "on stderr if it cannot be made. In the foreground: 0 after an orderly end, 1 "
                    "after an error.",
                ),
            ),
            Section(
                "DIAGNOSTICS",
                (
                    "One event a line on stdout: time, level, interface, then "
                    "`event=`<name> and more, as key=value or with `--log-format json` as an "
                    "object. `wgdctl doctor` says in sentences what is wrong with a tunnel.",
                ),
            ),
            Section("EXAMPLES", _EXAMPLES),
            Section(
                "SEE ALSO",
                ("wgdctl(8), wg(8), wg-quick(8), ip-link(8), systemd.exec(5)",),
            ),
        ),
    )


def _synopsis(options: tuple[Option, ...]) -> str:
    parts = ["`wgd`"]
    for option in options:
        if option.names[0] not in ("-h", "--version"):
            names = "|".join(f"`{name}`" for name in option.names)
            parts.append(f"[{names}{_value(option)}]")
    return " ".join((*parts, "<INTERFACE>"))


def option_term(option: Option, *more: str) -> Term:
    """Return an option as its manual has it; `more` are further paragraphs."""
    names = ", ".join(f"`{name}`" for name in option.names)
    return Term(names + _value(option), (sentence(option.summary), *more))


def _value(option: Option) -> str:
    if option.value is None:
        return ""
    if option.value.name == "|".join(option.value.words):
        return " " + "|".join(f"`{word}`" for word in option.value.words)
    return f" <{option.value.name.strip('<>')}>"


def sentence(summary: str) -> str:
    """Return a summary of `--help` as a sentence."""
    return f"{summary[0].upper()}{summary[1:]}."
