"""The keys of handshakes in a file, for Wireshark: with it a capture can be decrypted.

Each handshake adds lines `NAME = base64`, in an order that means something to Wireshark: the static
keys are known before the ephemeral one is used, and a preshared key belongs to the ephemeral key of
the line before it. Wireshark reads what is new when it sees a handshake message, so note the keys
before the message is sent.

Whoever has the file can read all that was sent, and can pose as this device.

Source: the WireGuard page of Wireshark's wiki, "Key Log Format", and how its dissector reads it.
"""

import base64
import logging
import os
import stat
from pathlib import Path

from wgd.configuration import NO_KEY
from wgd.errors import WgdError

logger = logging.getLogger(__name__)


class KeyLog:
    """Appends to `path`, which is made if it is not there, readable by its owner only.

    Raises WgdError if it cannot be opened, or if anybody but this user could read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = _open(path)
        self._statics: tuple[bytes, bytes] | None = None
        """What the lines so far say last."""
        self._is_failing = False
        self._is_line_open = False
        """The last write has left a line without its end."""
        logger.warning(
            "event=keylog path=%r warning=%r",
            str(path),
            "whoever has this file can decrypt all traffic",
        )

    def close(self) -> None:
        """Close the file, once or more; what is noted later is not written."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def note(
        self,
        *,
        local_static: bytes,
        remote_static: bytes,
        local_ephemeral: bytes,
        preshared_key: bytes = NO_KEY,
    ) -> None:
        """Append the keys of a handshake, 32 raw bytes each: our private ones, the peer's public.

        To be called when a handshake message of ours is made, before it is sent. Never raises: the
        first of several failures in a row is one line in the log.
        """
        if self._fd is None:
            return
        lines = b"\n" if self._is_line_open else b""
        if self._statics != (local_static, remote_static):
            lines += _line("LOCAL_STATIC_PRIVATE_KEY", local_static)
            lines += _line("REMOTE_STATIC_PUBLIC_KEY", remote_static)
        lines += _line("LOCAL_EPHEMERAL_PRIVATE_KEY", local_ephemeral)
        if preshared_key != NO_KEY:
            lines += _line("PRESHARED_KEY", preshared_key)
        if self._append(lines):
            self._statics = (local_static, remote_static)
        else:
            self._statics = None

    def _append(self, lines: bytes) -> bool:
        """Write all in one call, so that those of two processes do not mix; whether that worked."""
        assert self._fd is not None  # noqa: S101 - the caller has looked
        try:
            written = os.write(self._fd, lines)
        except OSError as error:
            self._fail(error.strerror or str(error))
            return False
        self._is_line_open = 0 < written < len(lines)
        if written < len(lines):
            self._fail("no room for a whole line")
            return False
        self._is_failing = False
        return True

    def _fail(self, reason: str) -> None:
        if not self._is_failing:
            self._is_failing = True
            logger.error("event=keylog_failed path=%r reason=%r", str(self._path), reason)


def _open(path: Path) -> int:
    """Return the descriptor of a file that is ours alone. Raises WgdError."""
    # Not blocking, or a FIFO would keep us waiting for its reader.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except (OSError, ValueError) as error:
        if path.is_symlink():
            raise WgdError(f"--keylog {path} is a symbolic link: name the file itself") from error
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise WgdError(f"cannot open --keylog {path}: {reason}") from error
    status = os.fstat(fd)
    refusal = None
    if not stat.S_ISREG(status.st_mode):
        refusal = "is no regular file: name another"
    elif status.st_uid != os.geteuid():
        refusal = f"belongs to user {status.st_uid}, not to {os.geteuid()}: name a new file"
    elif status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        refusal = f"has mode {mode:04o}, so others can read the keys: chmod 0600"
    if refusal is not None:
        os.close(fd)
        raise WgdError(f"--keylog {path} {refusal}")
    return fd


def _line(name: str, key: bytes) -> bytes:
    return b"%s = %s\n" % (name.encode("ascii"), base64.b64encode(key))
