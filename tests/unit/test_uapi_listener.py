"""Proves that the socket file is private, never dead or stolen, and that its loss is noticed."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from wgd.errors import WgdError
from wgd.uapi.inotify import InotifyWatch
from wgd.uapi.listener import SocketFile

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux")


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f"wgd{os.getpid()}-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def created(directory: Path, name: str = "wg0") -> Iterator[SocketFile]:
    file = SocketFile.create(directory, name)
    try:
        yield file
    finally:
        file.remove()
        file.sock.close()


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def leave_stale_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


# -- create ----------------------------------------------------------------------------------------


def test_makes_the_directory_and_listens(directory: Path) -> None:
    deep = directory / "run" / "wireguard"
    with created(deep) as file:
        assert file.path == deep / "wg0.sock"
        assert names(deep) == ["wg0.sock"]
        assert stat.S_IMODE(deep.stat().st_mode) == 0o755
        connect(file.path)
        assert file.is_ours()
    assert names(deep) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_mode_is_0600_whatever_the_umask_which_stays(directory: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with created(directory) as file:
            assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    finally:
        assert os.umask(before) == umask


def test_mode_is_never_wider_even_for_a_moment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []

    def spy(self: Path, mode: int) -> None:
        modes.append(stat.S_IMODE(self.stat().st_mode))

    monkeypatch.setattr(Path, "chmod", spy)
    before = os.umask(0)
    try:
        with created(directory):
            assert modes == [0o600]
    finally:
        os.umask(before)


def test_live_socket_is_refused_and_left_alone(directory: Path) -> None:
    with created(directory) as file:
        with pytest.raises(WgdError, match="in use"):
            SocketFile.create(directory, "wg0")
        assert file.is_ours()
        connect(file.path)


@linux_only
def test_busy_socket_with_a_full_backlog_is_alive(directory: Path) -> None:
    path = directory / "wg0.sock"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(0)
        while True:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        with pytest.raises(WgdError, match="in use"):
            SocketFile.create(directory, "wg0")


def test_live_datagram_socket_is_refused(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(directory / "wg0.sock"))
        with pytest.raises(WgdError, match="in use"):
            SocketFile.create(directory, "wg0")


def test_stale_socket_is_taken_over(directory: Path) -> None:
    leave_stale_socket(directory / "wg0.sock")
    with created(directory) as file:
        connect(file.path)
        assert names(directory) == ["wg0.sock"]


def test_what_is_not_a_socket_is_refused(directory: Path) -> None:
    path = directory / "wg0.sock"

    def make_link() -> None:
        path.symlink_to("nowhere")

    for make in (path.touch, path.mkdir, make_link):
        make()
        with pytest.raises(WgdError, match="not a socket"):
            SocketFile.create(directory, "wg0")
        assert names(directory) == ["wg0.sock"]
        path.rmdir() if path.is_dir() else path.unlink()


def test_leftover_of_a_dead_predecessor_with_our_pid(directory: Path) -> None:
    seen: list[str] = []

    def spy(temporary: Path, _path: Path, **_options: Any) -> None:
        seen.append(temporary.name)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", spy)
        with pytest.raises(KeyboardInterrupt):
            SocketFile.create(directory, "wg0")
    assert names(directory) == []  # an interrupted start cleans up
    (temporary,) = seen
    assert not temporary.endswith(".sock")
    leave_stale_socket(directory / temporary)  # a killed one does not
    with created(directory) as file:
        connect(file.path)
        assert names(directory) == ["wg0.sock"]


def killed_at(directory: Path, interface: str, moment: str) -> None:
    """Let a process make a socket, and kill it right before it calls this function of `os`."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            setattr(os, moment, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            SocketFile.create(directory, interface)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@linux_only
@pytest.mark.parametrize("moment", ["link", "chmod", "unlink"])
def test_leftovers_of_killed_ones_go_with_the_next_start(directory: Path, moment: str) -> None:
    for interface in ("wg0", "wg0.1", "wg1"):
        for _ in range(2):
            killed_at(directory, interface, moment)
    assert len(names(directory)) == 3, "the second of two has removed what the first has left"
    others = {"wg0.sock2", "wg0.zzzz", "wg0.0001", "wg0.000"}
    for name in others - {"wg0.0001"}:
        (directory / name).touch()
    leave_stale_socket(directory / "wg0.0001")  # of process 1, which is there
    for interface in ("wg0", "wg0.1", "wg1"):
        with created(directory, interface):
            assert f"{interface}.sock" in names(directory)
    assert set(names(directory)) == others


def test_directory_that_is_a_file(directory: Path) -> None:
    (directory / "file").touch()
    with pytest.raises(WgdError, match="/file is there and is not a directory"):
        SocketFile.create(directory / "file", "wg0")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/", "a\0b", "x" * 16, "\u00e9" * 8, "../wg0"]
)
def test_bad_interface_names(directory: Path, name: str) -> None:
    with pytest.raises(WgdError, match="interface name"):
        SocketFile.create(directory, name)
    assert names(directory) == []


@pytest.mark.parametrize("name", ["w", "x" * 15, "\u00e9" * 7, "wg0.1", "...", "wg-home_2"])
def test_good_interface_names(directory: Path, name: str) -> None:
    with created(directory, name) as file:
        assert file.path == directory / f"{name}.sock"
        connect(file.path)


def test_clients_during_start_are_never_refused(directory: Path) -> None:
    names = [f"wg{number}" for number in range(150)]
    refused: list[str] = []

    def knock() -> None:
        for name in names:
            while True:
                try:
                    connect(directory / f"{name}.sock")
                except FileNotFoundError:
                    continue
                except OSError as error:
                    refused.append(f"{name}: {error}")
                break

    client = threading.Thread(target=knock)
    client.start()
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(created(directory, name))
        client.join(timeout=30)
    assert not client.is_alive()
    assert refused == []


# -- whose directory -------------------------------------------------------------------------------


def as_foreign(directory: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.chmod(mode)
    if os.geteuid() == 0:
        os.chown(directory, 54321, 54321)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777, 0o1775, 0o3777, 0o720])
def test_a_foreign_directory_others_can_write_to_is_refused(
    directory: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_foreign(directory, mode, monkeypatch)
    owner = directory.stat().st_uid
    with pytest.raises(WgdError, match=rf"user {owner} and has mode {mode:04o}.*chmod go-w"):
        SocketFile.create(directory, "wg0")
    assert names(directory) == []


@pytest.mark.parametrize("mode", [0o755, 0o711, 0o700])
def test_a_foreign_directory_only_its_owner_writes_to_is_taken(
    directory: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_foreign(directory, mode, monkeypatch)
    with created(directory) as file:
        connect(file.path)


@pytest.mark.parametrize(
    ("mode", "is_taken"),
    [(0o777, False), (0o757, False), (0o722, False), (0o1777, True), (0o775, True), (0o700, True)],
)
def test_an_own_directory_all_can_write_to_needs_the_sticky_bit(
    directory: Path, mode: int, is_taken: bool
) -> None:
    directory.chmod(mode)
    if is_taken:
        with created(directory) as file:
            connect(file.path)
    else:
        with pytest.raises(WgdError, match=rf"has mode {mode:04o}.*chmod o-w"):
            SocketFile.create(directory, "wg0")
        assert names(directory) == []


def test_a_linked_directory_is_judged_by_what_it_is(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = directory / "private", directory / "run"
    real.mkdir()
    link.symlink_to("private")
    with created(link) as file:
        assert file.path == link / "wg0.sock"
        assert names(real) == ["wg0.sock"]
        connect(file.path)
    as_foreign(real, 0o777, monkeypatch)
    with pytest.raises(WgdError, match="chmod go-w"):
        SocketFile.create(link, "wg0")


def test_a_directory_with_a_nul_is_a_clear_error() -> None:
    with pytest.raises(WgdError, match="NUL"):
        SocketFile.create(Path("/tmp/a\0b"), "wg0")


# -- remove ----------------------------------------------------------------------------------------


def test_remove_leaves_what_is_not_ours(directory: Path) -> None:
    with created(directory) as file:
        file.path.unlink()
        leave_stale_socket(file.path)
        assert not file.is_ours()
        file.remove()
        assert file.path.exists()
        file.path.unlink()
        file.remove()  # nothing there: quiet


# -- adopt -----------------------------------------------------------------------------------------


def test_from_fd_learns_the_path(directory: Path) -> None:
    path = directory / "wg0.sock"
    with socket.socket(socket.AF_UNIX) as parent:
        parent.bind(str(path))
        parent.listen()
        fd = os.dup(parent.fileno())
        os.set_inheritable(fd, True)
        file = SocketFile.from_fd(fd)
    assert file.path == path
    assert not os.get_inheritable(fd)
    connect(path)
    file.remove()
    file.sock.close()
    assert names(directory) == []


def test_from_fd_of_another_wgd_finds_the_published_file(directory: Path) -> None:
    with created(directory, "wg0.1") as parent:
        child = SocketFile.from_fd(os.dup(parent.sock.fileno()))
        assert child.path == directory / "wg0.1.sock"
        assert child.is_ours()
        child.sock.close()


def test_from_fd_refuses_what_it_cannot_serve(directory: Path) -> None:
    with tempfile.TemporaryFile() as plain, pytest.raises(WgdError, match="not a socket"):
        SocketFile.from_fd(os.dup(plain.fileno()))
    with pytest.raises(WgdError, match="not a socket"):
        SocketFile.from_fd(1_000_000)
    for kind, match in (
        ((socket.AF_INET, socket.SOCK_STREAM), "not a unix stream"),
        ((socket.AF_UNIX, socket.SOCK_DGRAM), "not a unix stream"),
        ((socket.AF_UNIX, socket.SOCK_STREAM), "not bound"),
    ):
        with socket.socket(*kind) as sock, pytest.raises(WgdError, match=match):
            SocketFile.from_fd(os.dup(sock.fileno()))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(directory / "gone.sock"))
        (directory / "gone.sock").unlink()
        with pytest.raises(WgdError, match="cannot be used"):
            SocketFile.from_fd(os.dup(sock.fileno()))


def test_of_two_that_start_at_once_one_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one takes the name after we have found it free, before we take it."""
    with contextlib.ExitStack() as stack:
        link = os.link

        def link_too_late(*arguments: Any, **options: Any) -> None:
            monkeypatch.setattr(os, "link", link)
            with monkeypatch.context() as other:
                other.setattr(os, "getpid", lambda: 4242)
                stack.enter_context(created(directory))
            link(*arguments, **options)

        monkeypatch.setattr(os, "link", link_too_late)
        with pytest.raises(WgdError, match="in use"):
            SocketFile.create(directory, "wg0")
        assert [entry.name for entry in directory.iterdir()] == ["wg0.sock"]
        connect(directory / "wg0.sock")


# -- watch -----------------------------------------------------------------------------------------


def delete(path: Path) -> None:
    path.unlink()


def rename_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    leave_stale_socket(path.with_name("other"))
    path.with_name("other").rename(path)


def delete_and_recreate(path: Path) -> None:
    path.unlink()
    leave_stale_socket(path)


def delete_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def rename_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


@linux_only
@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize(
    "lose",
    [
        delete,
        rename_away,
        replace,
        delete_and_recreate,
        delete_directory,
        rename_directory,
    ],
)
def test_loss_is_noticed_once(
    directory: Path, lose: Callable[[Path], None], loop_factory: LoopFactory
) -> None:
    async def scenario() -> None:
        with created(directory / "run") as file:
            gone = asyncio.Event()
            calls: list[None] = []

            def on_gone() -> None:
                calls.append(None)
                gone.set()

            file.watch(asyncio.get_running_loop(), on_gone)
            await turns(10)
            assert not gone.is_set()
            lose(file.path)
            await asyncio.wait_for(gone.wait(), 10)
            (directory / "run").mkdir(exist_ok=True)
            (directory / "run" / "more").touch()
            await turns(10)
            assert len(calls) == 1

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())


@linux_only
@pytest.mark.parametrize("loop_factory", LOOPS)
def test_loss_before_the_watch_is_noticed(directory: Path, loop_factory: LoopFactory) -> None:
    async def scenario() -> None:
        with created(directory) as file:
            file.path.unlink()
            gone = asyncio.Event()
            file.watch(asyncio.get_running_loop(), gone.set)
            await asyncio.wait_for(gone.wait(), 10)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())


@linux_only
@pytest.mark.parametrize("loop_factory", LOOPS)
def test_harmless_changes_and_remove_are_no_loss(
    directory: Path, loop_factory: LoopFactory
) -> None:
    async def scenario() -> None:
        with created(directory) as file:
            calls: list[None] = []
            file.watch(asyncio.get_running_loop(), lambda: calls.append(None))
            seen = asyncio.Event()
            second = InotifyWatch(file.path, asyncio.get_running_loop(), seen.set)
            file.path.chmod(0o660)
            os.chown(file.path, os.getuid(), os.getgid())
            os.utime(file.path)
            connect(file.path)
            (directory / "neighbour").touch()
            (directory / "neighbour").rename(directory / "neighbour.name")
            (directory / "neighbour.name").unlink()
            await asyncio.wait_for(seen.wait(), 10)  # the events have been delivered
            await turns(10)
            assert calls == []
            seen.clear()
            file.remove()
            await asyncio.wait_for(seen.wait(), 10)
            await turns(10)
            assert calls == []
            second.close()
            second.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())


def inotify_descriptors() -> list[int]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists this directory
            if "inotify" in str(entry.readlink()):
                found.append(int(entry.name))
    return found


@linux_only
def test_watch_of_a_missing_directory_is_a_clear_error(directory: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(WgdError, match=r"missing.*No such file"):
            InotifyWatch(directory / "missing" / "file", asyncio.get_running_loop(), lambda: None)
        assert inotify_descriptors() == []

    asyncio.run(scenario())


@linux_only
@pytest.mark.parametrize("loop_factory", LOOPS)
def test_watch_wakes_up_once_for_an_event_and_then_sleeps(
    directory: Path, loop_factory: LoopFactory
) -> None:
    async def scenario() -> None:
        seen = asyncio.Event()
        calls: list[None] = []

        def on_change() -> None:
            calls.append(None)
            seen.set()

        file = directory / "file"
        file.touch()
        watch = InotifyWatch(file, asyncio.get_running_loop(), on_change)
        (directory / "neighbour").touch()
        await turns(50)
        assert calls == [], "what happens beside it wakes nobody"
        file.unlink()
        await asyncio.wait_for(seen.wait(), 10)
        await turns(50)
        assert len(calls) == 1
        watch.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())


@linux_only
def test_watch_leaves_no_descriptor_to_children_or_behind(directory: Path) -> None:
    async def scenario() -> None:
        watch = InotifyWatch(directory / "neighbour", asyncio.get_running_loop(), lambda: None)
        (fd,) = inotify_descriptors()
        assert not os.get_inheritable(fd)
        watch.close()
        assert inotify_descriptors() == []

    asyncio.run(scenario())


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_another_process_sees_it_in_use(directory: Path) -> None:
    with created(directory):
        code = (
            "import sys, pathlib; from wgd.uapi.listener import SocketFile;"
            "SocketFile.create(pathlib.Path(sys.argv[1]), 'wg0')"
        )
        result = subprocess.run(
            [sys.executable, "-c", code, str(directory)], capture_output=True, text=True
        )
    assert "in use" in result.stderr
