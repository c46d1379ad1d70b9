"""`wgd`: arguments and environment, nothing else. The names are wireguard-go's."""

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from wgd import __version__
from wgd.background import Ready, ensure_standard_descriptors, run_in_background
from wgd.dataplane.choice import MAX_WORKERS, DataPlaneName, DataPlaneOptions
from wgd.errors import WgdError
from wgd.interface_name import check_interface_name
from wgd.logs import LEVELS, Logs
from wgd.uapi.socket_policy import (
    DEFAULT_BUNDLE_IDS,
    SocketPolicy,
    choose_place,
    home_directory,
)

if TYPE_CHECKING:
    from wgd.daemon import Options

_ENVIRONMENT = """\
environment:
  LOG_LEVEL=verbose|error|silent  what is logged to stdout (default: error)
  WG_PROCESS_FOREGROUND=1         the same as --foreground
  WG_TUN_FD=N                     use the TUN device open as descriptor N
  WG_UAPI_FD=N                    use the listening UAPI socket open as descriptor N
  WG_TUN_NAME_FILE=FILE           macOS: where to write the name that "utun" became
  WGD_UAPI_POLICY, WGD_UAPI_DIR   the same as the options
  WGD_DATAPLANE, WGD_WORKERS      the same as the options
  WGD_NO_OFFLOAD=1                the same as --no-offload
"""


class _Parser(argparse.ArgumentParser):
    """Bad arguments are one line and exit status 1, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise WgdError(f"{message} (try: wgd --help)")


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


def _run(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> int:
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
    parser.add_argument("--version", action="version", version=f"wgd {__version__}")
    parsed = parser.parse_args(arguments)

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
    tun_fd = _descriptor(environment, "WG_TUN_FD")
    uapi_fd = _descriptor(environment, "WG_UAPI_FD")

    def serve(ready: Ready) -> int:
        # Imported here, so that a bad name or --help does not wait for the crypto library.
        from wgd.daemon import Options

        options = Options(interface, place, tun_fd, uapi_fd, dataplane)
        return _serve(options, level or "error", ready)

    if foreground:
        return serve(lambda: None)
    return run_in_background(serve, keep_output=level not in ("", "silent"))


def _serve(options: "Options", level: str, ready: Ready) -> int:
    from wgd.daemon import serve

    log = Logs(level if level in LEVELS else "error", options.interface)
    try:
        serve(options, ready)
    except (WgdError, OSError) as error:
        sys.stderr.write(f"wgd: {error}\n")
        return 1
    finally:
        log.close()
    return 0


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
