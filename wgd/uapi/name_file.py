"""The file beside a sandboxed tunnel's socket that tells which interface the tunnel has.

People choose the names of tunnels freely, so a name is checked before it becomes one of a file.
"""

import contextlib
import os
import unicodedata
from pathlib import Path
from typing import Final

from wgd.errors import WgdError

MAX_FILE_NAME_SIZE: Final = 255
"""Bytes; NAME_MAX of every file system a socket can be on."""

_NAME_SUFFIX: Final = ".name"


class NameFile:
    """The file TUNNEL.name, which tells the interface of a tunnel: `wg-quick` and apps read it."""

    def __init__(self, path: Path, identity: tuple[int, int]) -> None:
        self.path = path
        self._identity = identity

    @classmethod
    def create(cls, directory: Path, tunnel_name: str, interface_name: str) -> "NameFile":
        """Write `interface_name` and a newline, mode 0400, whole from the first moment on.

        A file of that name is replaced. Raises WgdError: a bad name, or the system's refusal.
        """
        check_tunnel_name(tunnel_name)
        path = directory / f"{tunnel_name}{_NAME_SUFFIX}"
        temporary = directory / f"{interface_name}.{os.getpid()}{_NAME_SUFFIX}.new"
        try:
            # Only a predecessor with our process id can have left it.
            temporary.unlink(missing_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, 0o400)  # whatever the umask
                file.write(os.fsencode(f"{interface_name}\n"))
            identity = _identity(temporary)
            temporary.rename(path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError):
                raise WgdError(f"cannot write {path}: {error.strerror or error}") from error
            raise
        return cls(path, identity)

    def remove(self) -> None:
        """Unlink the file if it is still ours."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


def check_tunnel_name(name: str) -> None:
    """Raise WgdError unless `name`, which people choose freely, can be part of a file name."""
    if name in ("", ".", ".."):
        raise WgdError(f"tunnel name {name!r} is reserved: choose another")
    # Cc: control characters; Cs: what is no UTF-8; Zl, Zp: line ends.
    if "/" in name or any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in name):
        raise WgdError(
            f"tunnel name {name!r} has a slash or a control character in it: leave it out"
        )
    size, most = len(name.encode()), MAX_FILE_NAME_SIZE - len(_NAME_SUFFIX)
    if size > most:
        raise WgdError(f"tunnel name {name!r} is {size} bytes long: use at most {most}")


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
