"""What goes wrong for a client, as errors that name the device and the cure."""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from wgd.errors import WgdError
from wgd.uapi.client_protocol import Answer, AnswerError
from wgd.uapi.discovery import FoundSocket

_CURES: Final = {
    errno.EACCES: "run this as root, or as the user the tunnel belongs to",
    errno.EPERM: "run this as root; on macOS, allow the program to access data of other apps",
    errno.ECONNREFUSED: "nobody listens there, so its daemon has ended or is starting: start it",
    errno.ENOTSOCK: "it is not a socket of a tunnel: move it away",
    errno.EPROTOTYPE: "it is not a socket of a tunnel: move it away",
}
_REFUSALS: Final = {
    errno.EINVAL: "a value or a setting is not understood by its daemon, whose log says which",
    errno.EPROTO: "its daemon did not understand the request and may be too old; see its log",
    errno.ENOENT: "it has no peer with such a public key: see which with `wg show`",
    errno.EOPNOTSUPP: "the program that this tunnel is in does not offer it",
    errno.EADDRINUSE: "choose a listen port that is free, or a fwmark it may set",
}


class DeviceError(WgdError):
    """A device could not be shown or configured; `errno` is a positive number.

    It is what the daemon answered, whatever its sign on the wire, or what the connection failed
    with: ETIMEDOUT after the timeout, EPROTO for an answer that is not understood.
    """

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno


class DeviceNotFoundError(DeviceError):
    """There is no device of that name; `errno` is ENODEV."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ENODEV, message)


@contextlib.contextmanager
def naming(found: FoundSocket, timeout_seconds: float) -> Iterator[None]:
    """Turn what may go wrong in a transaction into a DeviceError that names the device."""
    device = f"{found.name} ({found.path})"
    try:
        yield
    except TimeoutError:
        raise DeviceError(
            errno.ETIMEDOUT,
            f"{device} did not answer within {timeout_seconds:g} s: "
            "allow more time for a large configuration, or see whether its daemon hangs",
        ) from None
    except FileNotFoundError:
        raise DeviceNotFoundError(f"{device} has just gone: its daemon has ended") from None
    except AnswerError as error:
        raise DeviceError(
            errno.EPROTO, f"cannot understand {device}: {error}; see the log of its daemon"
        ) from None
    except OSError as error:
        number = error.errno or errno.EIO
        reason = error.strerror or str(error)
        cure = _CURES.get(number, "see whether its daemon is well")
        raise DeviceError(number, f"cannot ask {device}: {reason}; {cure}") from error
    except WgdError as error:  # its path cannot be connected to, and the text says why
        raise DeviceError(errno.ENAMETOOLONG, f"cannot ask {device}: {error}") from error


@contextlib.contextmanager
def asking_a_wgd(found: FoundSocket, answer: Answer) -> Iterator[None]:
    """Turn what other daemons do with a question they do not know into a DeviceError that says so.

    wireguard-go and gotatun close the connection without an answer, boringtun says EIO.
    """
    try:
        yield
    except DeviceError as error:
        is_closed = error.errno == errno.EPROTO and not answer.has_begun
        if is_closed or answer.errno == errno.EIO:
            raise _not_a_wgd(found) from error
        raise


def _not_a_wgd(found: FoundSocket) -> DeviceError:
    return DeviceError(
        errno.EOPNOTSUPP,
        f"{found.name} ({found.path}) is not a wgd, or an old one, and cannot do this; if it is "
        "one, see its log",
    )


def check_errno(found: FoundSocket, answer: Answer) -> None:
    """Raise DeviceError if the daemon answered with an errno."""
    number = answer.errno
    if number:
        name = errno.errorcode.get(number, f"errno {number}")
        cure = _REFUSALS.get(number, "see the log of its daemon")
        raise DeviceError(
            number,
            f"{found.name} ({found.path}) refused: {name} ({os.strerror(number)}); {cure}",
        )
