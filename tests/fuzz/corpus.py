"""The inputs that are kept: one file each, named by what is in it.

Those in `corpus/TARGET` reach all that can be reached and are chosen anew by `--minimise`; those in
`finds/TARGET` have failed once and stay.
"""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
DIRECTORY: Final = HERE / "corpus"
FINDS: Final = HERE / "finds"
_NATIVE: Final = HERE.parents[1] / "native/fuzz"
NATIVE_DIRECTORY: Final = _NATIVE / "corpus"
NATIVE_FINDS: Final = _NATIVE / "finds"


def name_of(data: bytes) -> str:
    """Return what the file of an input is called."""
    return sha256(data).hexdigest()[:16]


def load(directory: Path) -> list[bytes]:
    """Return the inputs in a directory, none if there is none; the order is always the same."""
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    return [path.read_bytes() for path in paths if path.is_file()]


def save(directory: Path, inputs: Iterable[bytes]) -> None:
    """Make a directory hold exactly these inputs."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {name_of(data): data for data in inputs}
    for path in directory.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, data in wanted.items():
        (directory / name).write_bytes(data)
