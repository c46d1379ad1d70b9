"""Proves that the name file is whole, private, checked, and goes with its socket."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wgd.errors import WgdError
from wgd.uapi.listener import SocketFile
from wgd.uapi.name_file import NameFile


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f"wgd{os.getpid()}-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("umask", [0o000, 0o777])
@pytest.mark.parametrize("tunnel", ["home", "My Tunnel: \u00e9 :1", "-", "...", "x" * 250])
def test_name_file_tells_the_interface_and_goes_with_the_socket(
    directory: Path, tunnel: str, umask: int
) -> None:
    before = os.umask(umask)
    try:
        file = SocketFile.create(directory, "utun5", tunnel_name=tunnel)
    finally:
        os.umask(before)
    path = directory / f"{tunnel}.name"
    assert path.read_bytes() == b"utun5\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert sorted(names(directory)) == sorted([path.name, "utun5.sock"])
    # wg-quick's rule for the two.
    assert abs(path.stat().st_mtime - file.path.lstat().st_mtime) < 2
    file.remove()
    file.sock.close()
    assert names(directory) == []


@pytest.mark.parametrize(
    "tunnel",
    ["", ".", "..", "a/b", "/", "../x", "a\0b", "a\nb", "a\x1b[2J", "\x7f", "\u2028", "\udcff",
     "x" * 251, "\u00e9" * 126],
)  # fmt: skip
def test_bad_tunnel_names_leave_nothing_behind(directory: Path, tunnel: str) -> None:
    deep = directory / "Data"
    with pytest.raises(WgdError, match="tunnel name"):
        SocketFile.create(deep, "utun5", tunnel_name=tunnel)
    assert names(directory) == []
    with pytest.raises(WgdError, match="tunnel name"):
        NameFile.create(directory, tunnel, "utun5")
    assert names(directory) == []


def test_a_start_that_fails_leaves_neither_file_nor_descriptor(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", refuse_mode_0400(os.fchmod))
        with pytest.raises(WgdError, match=r"cannot write .*home\.name: No space left"):
            SocketFile.create(directory, "utun5", tunnel_name="home")
    assert names(directory) == []
    (directory / "home.name").mkdir()
    with pytest.raises(WgdError, match=r"cannot write .*home\.name"):
        SocketFile.create(directory, "utun5", tunnel_name="home")
    live = SocketFile.create(directory, "utun6")
    with pytest.raises(WgdError, match="in use"):
        SocketFile.create(directory, "utun6", tunnel_name="work")
    live.remove()
    live.sock.close()
    assert names(directory) == ["home.name"]
    assert open_descriptors() == before


def refuse_mode_0400(real: Callable[[int, int], None]) -> Callable[[int, int], None]:
    def fchmod(fd: int, mode: int) -> None:
        if mode == 0o400:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, mode)

    return fchmod


def test_name_file_replaces_a_leftover_and_never_follows_a_link(directory: Path) -> None:
    victim, leftover = directory / "victim", directory / "home.name"
    victim.write_text("precious")
    for leave in (lambda: leftover.symlink_to("victim"), lambda: leftover.write_text("utun9\n")):
        leave()
        file = NameFile.create(directory, "home", "utun5")
        assert leftover.read_text() == "utun5\n"
        assert victim.read_text() == "precious"
        file.remove()
        assert names(directory) == ["victim"]


def test_name_file_of_another_is_left_alone(directory: Path) -> None:
    first = NameFile.create(directory, "home", "utun5")
    second = NameFile.create(directory, "home", "utun6")
    first.remove()
    assert second.path.read_text() == "utun6\n"
    second.remove()
    second.remove()  # nothing there: quiet
    assert names(directory) == []


def test_name_file_goes_though_the_socket_was_replaced(directory: Path) -> None:
    file = SocketFile.create(directory, "utun5", tunnel_name="home")
    other = directory / "other"
    other.touch()
    other.rename(file.path)
    file.remove()
    file.sock.close()
    assert names(directory) == ["utun5.sock"]
