"""Python for everybody: an interpreter in root's home cannot be started by any other user."""

import shlex
import stat
import sys
from pathlib import Path

from tests.testbed import daemon_command

_ROOT = Path(__file__).parents[2]


def _closed(path: Path) -> Path | None:
    """Return the first directory above `path` that is not for everybody."""
    return next(
        (one for one in reversed(path.parents) if not one.stat().st_mode & stat.S_IXOTH), None
    )


def needed() -> list[Path]:
    """Return the directories that the daemon's program is made of."""
    found = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), _ROOT}
    return sorted(one for one in found if not any(other in one.parents for other in found))


def opening() -> str:
    """Return the shell commands that, in a mount namespace of one's own, open what is closed."""
    script = []
    for path in needed():
        if (closed := _closed(path)) is None:
            continue
        inside, outside = shlex.quote(str(path)), shlex.quote(str(closed))
        script += [
            "mount --make-rprivate /",
            f"mount --rbind {inside} /mnt",
            f"mount -t tmpfs -o mode=755 tmpfs {outside}",
            f"mkdir -p {inside}",
            f"mount --move /mnt {inside}",
        ]
    return " && ".join(script) or "true"


def command(*program: str | Path) -> list[str]:
    """Return the command line of a daemon that will not be root; of another `program` if given."""
    script = f'{opening()} && exec "$@"'
    words = map(str, program or daemon_command())
    return ["unshare", "--mount", "sh", "-c", script, "sh", *words]
