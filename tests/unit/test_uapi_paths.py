"""Proves that sockets work at paths longer than sun_path, or that both lengths are told."""

import asyncio
import contextlib
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgd.errors import WgdError
from wgd.uapi.listener import SocketFile
from wgd.uapi.paths import connect_address

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f"wgd{os.getpid()}-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@contextlib.contextmanager
def created(directory: Path, name: str) -> Iterator[SocketFile]:
    file = SocketFile.create(directory, name)
    try:
        yield file
    finally:
        file.remove()
        file.sock.close()


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client, connect_address(path) as address:
        client.connect(address)


@pytest.mark.parametrize("size", [103, 104, 107, 108, 109, 175, 600])
@linux_only
def test_paths_of_any_length_work_as_short_ones_do(directory: Path, size: int) -> None:
    deep = directory
    while (room := size - len(str(deep)) - len("//w.sock")) > 200:
        deep /= "d" * 99
    deep /= "d" * room
    before = open_descriptors()
    with created(deep, "w") as file:
        assert len(str(file.path)) == size
        assert names(deep) == ["w.sock"]
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        connect(file.path)
        assert file.is_ours()
        with pytest.raises(WgdError, match="in use"):
            SocketFile.create(deep, "w")
    assert names(deep) == []
    assert open_descriptors() == before
    with socket.socket(socket.AF_UNIX) as dead, connect_address(deep / "w.sock") as address:
        dead.bind(address)
    with created(deep, "w") as file:
        assert file.is_ours()


@linux_only
def test_loss_of_a_sandbox_socket_with_a_long_path_is_noticed(directory: Path) -> None:
    async def scenario() -> None:
        home = directory / ("user" * 15) / "Library/Containers/com.example.extension/Data"
        with created(home, "utun5") as file:
            assert len(str(file.path)) > 107
            gone = asyncio.Event()
            file.watch(asyncio.get_running_loop(), gone.set)
            file.path.unlink()
            await asyncio.wait_for(gone.wait(), 10)

    asyncio.run(scenario())


def test_short_paths_are_used_as_they_are(directory: Path) -> None:
    for platform, longest in (("linux", 107), ("darwin", 103), ("freebsd14", 103)):
        path = Path("/") / ("x" * (longest - 1))
        with connect_address(path, platform=platform) as address:
            assert address == str(path)
    umlauts = Path("/") / ("\u00e9" * 53)  # bytes count, not characters
    with (
        pytest.raises(WgdError, match=r"107 bytes.*allows 103;"),
        connect_address(umlauts, platform="darwin"),
    ):
        pass


def test_long_paths_elsewhere_work_from_their_directory_only(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = directory / ("d" * 90)
    deep.mkdir()
    path = deep / "utun5.sock"
    assert len(str(path)) > 103
    monkeypatch.chdir(directory)
    with (
        pytest.raises(WgdError, match=rf"{len(str(path))} bytes.*allows 103; use a shorter"),
        connect_address(path, platform="darwin"),
    ):
        pass
    assert Path.cwd() == directory
    monkeypatch.chdir(deep)
    with connect_address(path, platform="darwin") as address:
        assert address == "utun5.sock"


@linux_only
def test_a_long_path_without_proc_or_with_a_long_name_names_both_lengths(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()
    path = directory / ("n" * 200)
    with (
        pytest.raises(WgdError, match=rf"{len(str(path))} bytes.*allows 107; use a shorter"),
        connect_address(path),
    ):
        pass
    deep = directory / ("d" * 200)
    deep.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda self: not str(self).startswith("/proc"))
        with pytest.raises(WgdError, match=r"bytes.*allows 107; use a shorter"):
            SocketFile.create(deep, "wg0")
    assert names(deep) == []
    with pytest.raises(FileNotFoundError), connect_address(directory / "missing" / ("n" * 99)):
        pass
    assert open_descriptors() == before
