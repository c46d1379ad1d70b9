"""`wgd`: arguments and environment, nothing else. The names are wireguard-go's."""

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from wgd import __version__
from wgd.background import Ready, ensure_standard_descriptors, run_in_background
from wgd.errors import WgdError
from wgd.interface_name import check_interface_name
from wgd.logs import LEVELS, Logs

_ENVIRONMENT = """\
environment:
  LOG_LEVEL=verbose|error|silent  what is logged to stdout (default: error)
  WG_PROCESS_FOREGROUND=1         the same as --foreground
  WG_TUN_FD=N                     use the TUN device open as descriptor N
  WG_UAPI_FD=N                    use the listening UAPI socket open as descriptor N
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
    parser.add_argument("--version", action="version", version=f"wgd {__version__}")
    parsed = parser.parse_args(arguments)

    interface: str = parsed.interface
    check_interface_name(interface)
    level = environment.get("LOG_LEVEL", "")
    foreground = parsed.foreground or environment.get("WG_PROCESS_FOREGROUND") == "1"
    tun_fd = _descriptor(environment, "WG_TUN_FD")
    uapi_fd = _descriptor(environment, "WG_UAPI_FD")

    def serve(ready: Ready) -> int:
        return _serve(interface, tun_fd, uapi_fd, level or "error", ready)

    if foreground:
        return serve(lambda: None)
    return run_in_background(serve, keep_output=level not in ("", "silent"))


def _serve(
    interface: str, tun_fd: int | None, uapi_fd: int | None, level: str, ready: Ready
) -> int:
    # Imported here, so that a bad name or --help does not wait for the crypto library.
    from wgd.daemon import Options, serve

    log = Logs(level if level in LEVELS else "error", interface)
    try:
        serve(Options(interface, tun_fd, uapi_fd), ready)
    except (WgdError, OSError) as error:
        sys.stderr.write(f"wgd: {error}\n")
        return 1
    finally:
        log.close()
    return 0


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
