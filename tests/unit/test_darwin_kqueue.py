"""Proves how the loss of the UAPI socket is noticed through kqueue; the kqueue is a fake."""

import asyncio
import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wgd.dataplane.wakeup import Wakeup
from wgd.errors import WgdError
from wgd.uapi import listener
from wgd.uapi.kqueue import KqueueWatch
from wgd.uapi.listener import SocketFile


class Kevent:
    def __init__(self, ident: int, *, filter: int, flags: int, fflags: int) -> None:  # noqa: A002 - kqueue's name
        self.fields = (ident, filter, flags, fflags)


class Kqueue:
    """Readable after `happen` until the events are taken."""

    last: "Kqueue"

    def __init__(self) -> None:
        Kqueue.last = self
        self.registered: list[tuple[int, int, int, int]] = []
        self.closed = 0
        self._wakeup = Wakeup()

    def fileno(self) -> int:
        return self._wakeup.fileno()

    def control(
        self, changes: list[Kevent] | None, maximum: int, timeout: float | None = None
    ) -> list[Any]:
        if changes:
            assert maximum == 0
            self.registered += [change.fields for change in changes]
            return []
        assert maximum > 0
        assert timeout == 0  # or it would block
        self._wakeup.clear()
        return [object()]

    def happen(self) -> None:
        self._wakeup.set()

    def close(self) -> None:
        self.closed += 1
        self._wakeup.close()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.AbstractEventLoop]:
    monkeypatch.setattr(select, "kqueue", Kqueue, raising=False)
    monkeypatch.setattr(select, "kevent", Kevent, raising=False)
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def turn(loop: asyncio.AbstractEventLoop) -> None:
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()


def test_the_directory_is_watched_for_names_and_for_its_own_end(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    calls: list[str] = []
    watch = KqueueWatch(tmp_path / "utun7.sock", loop, lambda: calls.append("look"))
    ((descriptor, kind, flags, notes),) = Kqueue.last.registered
    assert os.path.samestat(os.fstat(descriptor), tmp_path.stat())
    assert not os.get_inheritable(descriptor)
    assert (kind, flags, notes) == (-4, 0x0021, 0x0023)  # VNODE, ADD|CLEAR, DELETE|WRITE|RENAME
    turn(loop)
    assert calls == []
    for _ in range(2):
        Kqueue.last.happen()
        turn(loop)
    assert calls == ["look", "look"]
    watch.close()
    watch.close()
    assert Kqueue.last.closed == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_missing_directory_is_an_error_and_leaves_nothing_open(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    with pytest.raises(WgdError, match=r"cannot watch .*none: No such file"):
        KqueueWatch(tmp_path / "none" / "utun7.sock", loop, lambda: None)


def test_a_refusal_of_the_kernel_leaves_nothing_open(
    loop: asyncio.AbstractEventLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Kqueue, "control", refuse)
    with pytest.raises(WgdError, match="Too many open files"):
        KqueueWatch(tmp_path / "utun7.sock", loop, lambda: None)
    assert Kqueue.last.closed == 1


def test_on_macos_the_socket_file_is_watched_this_way(
    loop: asyncio.AbstractEventLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener.sys, "platform", "darwin")  # type: ignore[attr-defined]  # the module's own `sys`
    monkeypatch.chdir(tmp_path)  # short enough for macOS, whatever pytest calls its directory
    directory = Path(os.path.relpath(tmp_path))
    gone: list[str] = []
    with contextlib.closing(SocketFile.create(directory, "utun7").sock):
        pass
    file = SocketFile.create(directory, "utun7")
    with contextlib.closing(file.sock):
        file.watch(loop, lambda: gone.append("gone"))
        watched = Kqueue.last
        (tmp_path / "other.sock").touch()
        watched.happen()
        file.path.chmod(0o640)
        turn(loop)
        assert gone == []
        file.path.rename(tmp_path / "moved.sock")
        watched.happen()
        turn(loop)
        assert gone == ["gone"]
        assert watched.closed == 1
