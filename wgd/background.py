"""Going into the background the way wireguard-go does: the parent returns once the child is ready.

The child does all the work, so that what fails is reported by the parent, in one line, with exit
status 1: after the parent has returned 0, the TUN and the UAPI socket exist.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Final

Ready = Callable[[], None]
"""To be called once, when the service can be used."""

_READY: Final = b"\x00"
_STDERR: Final = 2


def ensure_standard_descriptors() -> None:
    """Open what the caller has closed of stdin, stdout and stderr on the null device.

    Otherwise the next thing that is opened gets its number, and is mistaken for it.
    """
    while (null_fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(null_fd)
    # Python has none for a descriptor that was closed when it started.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - for good


def run_in_background(serve: Callable[[Ready], int], *, keep_output: bool) -> int:
    """Run `serve` in a child process and return this process's exit status when it is ready.

    `serve` gets a function to call when it is ready and returns its exit status; what it writes to
    stderr before that is the parent's to show. Afterwards stdout and stderr go nowhere, unless
    `keep_output`. Must be called before any thread or event loop exists.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read_fd, write_fd = os.pipe()
    if os.fork() == 0:
        os.close(read_fd)
        _become_service()

        def ready() -> None:
            os.chdir("/")  # not before: a socket may have been bound by a relative path
            if not keep_output:
                _silence(1, 2)
            os.write(write_fd, _READY)
            os.close(write_fd)

        status = 1
        try:
            status = serve(ready)
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happened
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(write_fd)
    # Either one byte, or the end of file of a child that did not get that far.
    is_ready = os.read(read_fd, 1) == _READY
    os.close(read_fd)
    return 0 if is_ready else 1


def _become_service() -> None:
    os.setsid()
    _silence(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal it came from may close


def _silence(*descriptors: int) -> None:
    null_fd = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null_fd, descriptor)
    os.close(null_fd)
