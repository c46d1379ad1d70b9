"""`wgd`: arguments and environment, nothing else. The names are wireguard-go's."""

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from wgd import __version__
from wgd.background import Ready, ensure_standard_descriptors, run_in_background
from wgd.dataplane.choice import MAX_WORKERS, DataPlaneName, DataPlaneOptions
from wgd.errors import WgdError
from wgd.interface_name import check_interface_name
from wgd.logs import LEVELS
from wgd.service.descriptors import take
from wgd.service.privileges import User
from wgd.service.upgrade import Command
from wgd.uapi.socket_policy import (
    DEFAULT_BUNDLE_IDS,
    SocketPolicy,
    choose_place,
    home_directory,
)

if TYPE_CHECKING:
    from wgd.logs import LogFormat

_ENVIRONMENT = """\
environment:
  LOG_LEVEL=verbose|info|error|silent  what is logged to stdout (default: error)
  WG_PROCESS_FOREGROUND=1  the same as --foreground
  WG_TUN_FD=N              use the TUN device open as descriptor N
  WG_UAPI_FD=N             use the listening UAPI socket open as descriptor N
  WG_TUN_NAME_FILE=FILE    macOS: where to write the name that "utun" became
  WGD_NO_OFFLOAD=1         the same as --no-offload
  WGD_UAPI_POLICY, WGD_UAPI_DIR, WGD_DATAPLANE, WGD_WORKERS, WGD_CONFIG, WGD_USER, WGD_METRICS,
  WGD_METRICS_GROUP, WGD_KEYLOG, WGD_LOG_FORMAT  the same as the options
  NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS       from systemd

signals:
  INT, TERM  end (in the foreground HUP, too)
  USR1       log everything, or again what LOG_LEVEL says
  USR2       go on as the program that is now installed: the tunnel stays, the process too
"""


class _Parser(argparse.ArgumentParser):
    """Bad arguments are one line and exit status 1, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise WgdError(f"{message} (try: wgd --help)")


def make_parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the parser of `wgd`'s arguments, with the defaults that `environment` gives."""
    parser = _Parser(
        prog="wgd",
        description="A userspace WireGuard daemon: makes the TUN interface INTERFACE and serves "
        "it, configured with wg(8).",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("interface", metavar="INTERFACE", help="its name, such as wg0")
    parser.add_argument(
        "-f", "--foreground", action="store_true", help="stay in the foreground and log to stdout"
    )
    parser.add_argument(
        "--uapi-policy",
        choices=[policy.value for policy in SocketPolicy],
        default=environment.get("WGD_UAPI_POLICY") or SocketPolicy.AUTO.value,
        help="where the UAPI socket goes: the system's directory, the macOS sandbox's container "
        "that HOME is in, whichever of the two fits (auto, the default), or nowhere (off)",
    )
    parser.add_argument(
        "--uapi-dir",
        metavar="DIR",
        default=environment.get("WGD_UAPI_DIR") or None,
        help="put the UAPI socket into this directory",
    )
    parser.add_argument(
        "--sandbox-bundle-id",
        metavar="ID",
        action="append",
        help="whose container counts as the sandbox; may be repeated "
        f"(default: {DEFAULT_BUNDLE_IDS[0]})",
    )
    parser.add_argument(
        "--dataplane",
        choices=[name.value for name in DataPlaneName],
        default=environment.get("WGD_DATAPLANE") or DataPlaneName.AUTO.value,
        help="what moves the packets: the native engine (package wgd-native, Linux), the portable "
        "one, or native where that is installed (auto, the default)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        default=environment.get("WGD_WORKERS") or "1",
        help="native: use this many threads in each direction, for as many cores (default: 1)",
    )
    parser.add_argument(
        "--no-offload",
        action="store_true",
        default=environment.get("WGD_NO_OFFLOAD") == "1",
        help="never let the kernel join or cut packets (GSO, GRO), should its driver fail at it",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=environment.get("WGD_CONFIG") or None,
        help="configure the interface as `wgdctl up FILE` does, and undo it at the end",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        default=environment.get("WGD_USER") or None,
        help="go on as this user when everything is open, keeping three network capabilities",
    )
    parser.add_argument(
        "--metrics",
        metavar="ADDRESS",
        default=environment.get("WGD_METRICS") or None,
        help="serve Prometheus metrics and the status of the peers: HOST:PORT, or unix:PATH, or "
        "unix for /run/wgd/INTERFACE.sock",
    )
    parser.add_argument(
        "--metrics-group",
        metavar="GROUP",
        default=environment.get("WGD_METRICS_GROUP") or None,
        help="who may connect to the unix socket of --metrics (default: root only)",
    )
    parser.add_argument(
        "--keylog",
        metavar="FILE",
        default=environment.get("WGD_KEYLOG") or None,
        help="append the keys of every handshake to FILE, for Wireshark: whoever has it can read "
        "all that was sent",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default=environment.get("WGD_LOG_FORMAT") or "text",
        help="one event a line, as key=value (text, the default) or as a JSON object",
    )
    parser.add_argument("--version", action="version", version=f"wgd {__version__}")
    # For ourselves: whether the program on disk would start with these arguments.
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `wgd` and exit: 0 when it is ready (or has ended well in the foreground), else 1."""
    try:
        ensure_standard_descriptors()
        status = _run(arguments, os.environ)
    except WgdError as error:
        sys.stderr.write(f"wgd: {error}\n")
        status = 1
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    sys.exit(status)


def _run(arguments: Sequence[str] | None, environment: MutableMapping[str, str]) -> int:
    parsed = make_parser(environment).parse_args(arguments)
    interface: str = parsed.interface
    check_interface_name(interface)
    level = environment.get("LOG_LEVEL", "")
    foreground = parsed.foreground or environment.get("WG_PROCESS_FOREGROUND") == "1"
    place = choose_place(
        _policy(parsed.uapi_policy),
        directory=Path(parsed.uapi_dir).absolute() if parsed.uapi_dir else None,
        bundle_ids=parsed.sandbox_bundle_id or DEFAULT_BUNDLE_IDS,
        home=home_directory(environment),
    )
    dataplane = DataPlaneOptions(
        _dataplane(parsed.dataplane), _workers(parsed.workers), offload=not parsed.no_offload
    )
    log_format = _log_format(parsed.log_format)
    user = User.named(parsed.user) if parsed.user else None
    if parsed.check:
        return _check(dataplane, _absolute(parsed.config), interface)
    command = Command.of_this_process(environment)
    handed = take(environment, os.getpid())
    tun_fd = _descriptor(environment, "WG_TUN_FD")
    uapi_fd = _descriptor(environment, "WG_UAPI_FD")
    if handed.tun and tun_fd is not None:
        raise WgdError(f"WG_TUN_FD={tun_fd} and LISTEN_FDNAMES both give a TUN device: leave one")
    if (handed.uapi, handed.uapi_own) != (None, None) and uapi_fd is not None:
        raise WgdError(f"WG_UAPI_FD={uapi_fd} and LISTEN_FDNAMES both give a socket: leave one")

    def serve(ready: Ready) -> int:
        # Imported here, so that a bad name or --help does not wait for the crypto library.
        from wgd.daemon import Options, start

        return start(
            Options(
                interface,
                place,
                tun_fd=tun_fd,
                uapi_fd=uapi_fd,
                handed=handed,
                dataplane=dataplane,
                config=_absolute(parsed.config),
                user=user,
                metrics=parsed.metrics,
                metrics_group=parsed.metrics_group,
                keylog=_absolute(parsed.keylog),
                log_level=level if level in LEVELS else "error",
                log_format=log_format,
                command=command,
            ),
            ready,
        )

    if foreground or handed.is_some:
        # Who hands us descriptors, by our process id, wants this process and no child of it.
        return serve(lambda: None)
    return run_in_background(serve, keep_output=level not in ("", "silent"))


def _check(dataplane: DataPlaneOptions, config: Path | None, interface: str) -> int:
    """Load all that a start would load; raises WgdError and OSError."""
    import wgd.daemon  # noqa: F401 - whether it can be imported is the question
    from wgd.dataplane.choice import choose

    choose(dataplane)
    if config is not None:
        from wgd.quick.plan import Plan

        Plan.load(os.fspath(config), interface)
    return 0


def _absolute(path: str | None) -> Path | None:
    return Path(path).absolute() if path else None


def _log_format(text: str) -> "LogFormat":
    """Return the format of that name; argparse does not check what the environment says."""
    match text:
        case "text" | "json":
            return text
    raise WgdError(f"WGD_LOG_FORMAT={text!r} is no format: give text or json")


def _policy(text: str) -> SocketPolicy:
    """Return the policy of that name; argparse does not check what the environment says."""
    try:
        return SocketPolicy(text)
    except ValueError:
        names = ", ".join(policy.value for policy in SocketPolicy)
        raise WgdError(f"WGD_UAPI_POLICY={text!r} is no policy: give one of {names}") from None


def _dataplane(text: str) -> DataPlaneName:
    """Return the data plane of that name; argparse does not check what the environment says."""
    try:
        return DataPlaneName(text)
    except ValueError:
        names = ", ".join(name.value for name in DataPlaneName)
        raise WgdError(f"WGD_DATAPLANE={text!r} is no data plane: give one of {names}") from None


def _workers(text: str) -> int:
    """Return the number of workers, whether an option or the environment gave it."""
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_WORKERS:
        return int(text)
    raise WgdError(f"--workers or WGD_WORKERS: {text!r} is not a number from 1 to {MAX_WORKERS}")


def _descriptor(environment: Mapping[str, str], name: str) -> int | None:
    """Take over the descriptor whose number is in an environment variable; None if it is not set.

    One of the standard descriptors gets another number, because those will be replaced. Raises
    WgdError.
    """
    text = environment.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise WgdError(f"{name}={text!r} is not a descriptor: give its number")
    given = int(text)
    try:
        fcntl.fcntl(given, fcntl.F_GETFD)
        return given if given > 2 else fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError as error:
        raise WgdError(f"{name}={text} is not an open descriptor: {error.strerror}") from error
