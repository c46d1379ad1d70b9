"""Socket paths that are longer than `sun_path`: what to give to `bind` and `connect` instead.

Linux looks a socket up through a descriptor of its directory: /proc/self/fd/N/NAME is short.
Elsewhere only a relative path is shorter, and a change of directory would concern the whole
process: so it is used where the process already is in that directory, as a sandboxed one often is.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wgd.errors import WgdError

_LONGEST_LINUX: Final = 107
_LONGEST_ELSEWHERE: Final = 103


def longest_path(platform: str = sys.platform) -> int:
    """Return how many bytes of a path fit into `sun_path`, whose last byte is a NUL."""
    return _LONGEST_LINUX if platform == "linux" else _LONGEST_ELSEWHERE


@contextlib.contextmanager
def connect_address(path: Path, *, platform: str = sys.platform) -> Iterator[str]:
    """Yield what to give to `connect`, or `bind`, for the socket at `path`; good inside the block.

    It is `path` itself where that fits. Raises WgdError, naming both lengths, where no shorter form
    works, and OSError when the directory of a long path cannot be opened.
    """
    if _fits(os.fspath(path), platform):
        yield os.fspath(path)
    elif platform == "linux":
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Without /proc, or with a long name, there is no shorter form.
            short = f"/proc/self/fd/{directory}"
            if not Path(short).exists() or not _fits(f"{short}/{path.name}", platform):
                raise _too_long(path, platform)
            yield f"{short}/{path.name}"
        finally:
            os.close(directory)
    else:
        if not path.parent.samefile(".") or not _fits(path.name, platform):
            raise _too_long(path, platform)
        yield path.name


def _fits(text: str, platform: str) -> bool:
    return len(os.fsencode(text)) <= longest_path(platform)


def _too_long(path: Path, platform: str) -> WgdError:
    cure = "" if platform == "linux" else ", or run in that directory"
    return WgdError(
        f"socket path {path} is {len(os.fsencode(path))} bytes long, and this system allows "
        f"{longest_path(platform)}; use a shorter directory{cure}"
    )
