"""WG_TUN_NAME_FILE: tells who asked for "any utun" which one it has become.

wireguard-go's rule: the file is written only when the interface asked for is exactly `utun`, and
whoever asked removes it. wg-quick's rule: it trusts the file only if its mtime and that of the UAPI
socket are less than two seconds apart; so write it right after the socket has its name.
"""

import logging
import os
import stat
import sys
from collections.abc import Mapping
from typing import Final

logger = logging.getLogger(__name__)

ENVIRONMENT_NAME: Final = "WG_TUN_NAME_FILE"


def write_name_file(requested: str, real: str, environment: Mapping[str, str] = os.environ) -> None:
    """Write `real` and a newline to the file that the environment names, mode 0400.

    Does nothing off macOS, without such a file, or when a certain interface was `requested`. What
    goes wrong is logged: the tunnel works without it.
    """
    path = environment.get(ENVIRONMENT_NAME)
    if sys.platform != "darwin" or requested != "utun" or not path:
        return
    try:
        _write(path, f"{real}\n".encode())
    except OSError as error:
        logger.error(  # noqa: TRY400 - the reason is all there is to say
            "event=name_file_failed path=%r reason=%r", path, error.strerror
        )


def _write(path: str, content: bytes) -> None:
    """Write it whole; no file that tells half a name, or none, stays behind. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o400)
    is_file = stat.S_ISREG(os.fstat(fd).st_mode)
    try:
        if is_file:  # it may have been there, with another mode
            os.fchmod(fd, 0o400)
        while content:
            content = content[os.write(fd, content) :]
    except OSError:
        if is_file:
            os.unlink(path)  # noqa: PTH108 - a string, as it came
        raise
    finally:
        os.close(fd)
