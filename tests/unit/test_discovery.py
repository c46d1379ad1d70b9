"""Proves that discovery looks everywhere, survives every broken place, and says what it skipped."""

import contextlib
import errno
import os
import pwd
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from wgd.uapi import discovery
from wgd.uapi.discovery import FoundSocket, Survey, home_of, search_places
from wgd.uapi.paths import connect_address

APP = "com.wireguard.macos.network-extension"
NOBODY = 65534


class Machine:
    """A directory with a system directory and homes, and sockets in them."""

    def __init__(self, root: Path, sockets: contextlib.ExitStack) -> None:
        self.root = root
        self.system = root / "run"
        self.home = root / "ada"
        self.data = self.container(self.home)
        self._sockets = sockets

    @staticmethod
    def container(home: Path, bundle_id: str = APP) -> Path:
        return home / "Library" / "Containers" / bundle_id / "Data"

    def listen(
        self, path: Path, kind: int = socket.SOCK_STREAM, *, backlog: int = 5
    ) -> socket.socket:
        path.parent.mkdir(parents=True, exist_ok=True)
        sock = self._sockets.enter_context(socket.socket(socket.AF_UNIX, kind))
        with connect_address(path) as address:
            sock.bind(address)
        if kind == socket.SOCK_STREAM:
            sock.listen(backlog)
        return sock

    def die(self, path: Path) -> None:
        self.listen(path).close()

    def survey(
        self,
        *,
        directory: Path | None = None,
        bundle_ids: tuple[str, ...] = (APP,),
        environment: Mapping[str, str] | None = None,
        homes: Mapping[str, Path] | None = None,
    ) -> Survey:
        return discovery.survey(
            directory=directory,
            bundle_ids=bundle_ids,
            environment={"HOME": str(self.home)} if environment is None else environment,
            home_of=(homes or {}).get,
            system_directory=self.system,
        )


@pytest.fixture
def machine() -> Iterator[Machine]:
    root = Path(tempfile.mkdtemp(prefix=f"wgd{os.getpid()}-", dir="/tmp"))
    root.chmod(0o755)
    with contextlib.ExitStack() as sockets:
        yield Machine(root, sockets)
    shutil.rmtree(root)


def paths(result: Survey) -> list[Path]:
    return [found.path for found in result.sockets]


def notes(result: Survey) -> dict[Path, str]:
    return {note.path: note.reason for note in result.notes}


# -- places ----------------------------------------------------------------------------------------


def places_for(
    environment: Mapping[str, str], directory: Path | None = None, *bundle_ids: str
) -> list[str]:
    places, _ = search_places(
        directory=directory,
        bundle_ids=bundle_ids or (APP,),
        environment=environment,
        home_of={"ada": Path("/Users/ada")}.get,
    )
    return [str(place) for place in places]


def test_places_in_their_order() -> None:
    environment = {"HOME": "/var/root", "SUDO_USER": "ada"}
    assert places_for(environment, Path("/srv/wg"), "org.one", "org.two") == [
        "/srv/wg",
        "/var/run/wireguard",
        "/var/root/Library/Containers/org.one/Data",
        "/var/root/Library/Containers/org.two/Data",
        "/Users/ada/Library/Containers/org.one/Data",
        "/Users/ada/Library/Containers/org.two/Data",
    ]


def test_each_place_once_when_sudo_keeps_home() -> None:
    environment = {"HOME": "/Users/ada", "SUDO_USER": "ada"}
    assert places_for(environment, Path("/var/run/wireguard")) == [
        "/var/run/wireguard",
        f"/Users/ada/Library/Containers/{APP}/Data",
    ]


def test_from_inside_a_container_the_users_home_is_searched() -> None:
    home = f"/Users/ada/Library/Containers/{APP}/Data"
    assert places_for({"HOME": home}, None, APP, "org.two") == [
        "/var/run/wireguard",
        home,
        "/Users/ada/Library/Containers/org.two/Data",
    ]


def test_home_of_a_user() -> None:
    me = pwd.getpwuid(os.getuid())
    assert home_of(me.pw_name) == Path(me.pw_dir)
    assert home_of(f"no-such-user-{os.getpid()}") is None
    assert home_of("a\0b") is None


# -- found -----------------------------------------------------------------------------------------


def test_system_and_sandbox_in_one_listing(machine: Machine) -> None:
    machine.listen(machine.system / "wg0.sock")
    machine.listen(machine.data / "utun5.sock")
    result = machine.survey()
    assert result.sockets == (
        FoundSocket("wg0", machine.system / "wg0.sock", machine.system),
        FoundSocket("utun5", machine.data / "utun5.sock", machine.data),
    )
    assert result.places == (machine.system, machine.data)
    assert result.notes == ()


def test_missing_places_are_listed_and_no_note(machine: Machine) -> None:
    result = machine.survey(directory=machine.root / "missing")
    assert result == Survey((machine.root / "missing", machine.system, machine.data), (), ())


def test_apps_other_than_wireguards_are_found_by_bundle_id(machine: Machine) -> None:
    own = machine.container(machine.home, "org.example.tunnel") / "utun7.sock"
    machine.listen(own)
    assert paths(machine.survey()) == []
    assert paths(machine.survey(bundle_ids=(APP, "org.example.tunnel"))) == [own]


def test_under_sudo_the_callers_home_is_searched_too(machine: Machine) -> None:
    machine.listen(machine.data / "utun5.sock")
    environment = {"HOME": str(machine.root / "root"), "SUDO_USER": "ada"}
    result = machine.survey(environment=environment, homes={"ada": machine.home})
    assert paths(result) == [machine.data / "utun5.sock"]
    assert result.notes == ()


def test_a_system_extensions_directory_can_be_given(machine: Machine) -> None:
    elsewhere = machine.root / "private" / "var" / "root" / "Data"
    machine.listen(elsewhere / "utun5.sock")
    assert paths(machine.survey(directory=elsewhere)) == [elsewhere / "utun5.sock"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere these paths are a clear note")
def test_a_user_name_of_sixty_letters_is_found(machine: Machine) -> None:
    home = machine.root / ("u" * 60)
    long = machine.container(home) / "utun5.sock"
    machine.listen(long)
    assert len(str(long)) > 107
    result = machine.survey(environment={"HOME": str(home)})
    assert paths(result) == [long]
    assert result.notes == ()


def test_a_path_too_long_for_this_system_is_a_note_with_both_lengths(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = machine.root / ("u" * 60)
    long = machine.container(home) / "utun5.sock"
    machine.listen(long)
    machine.listen(machine.system / "wg0.sock")
    monkeypatch.setattr(
        discovery, "connect_address", lambda path: connect_address(path, platform="darwin")
    )
    result = machine.survey(environment={"HOME": str(home)})
    assert paths(result) == [machine.system / "wg0.sock"]
    assert f"{len(str(long))} bytes long, and this system allows 103" in notes(result)[long]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog refuses")
def test_a_busy_socket_is_found_without_waiting(machine: Machine) -> None:
    path = machine.system / "wg0.sock"
    machine.listen(path, backlog=0)
    with contextlib.ExitStack() as stack:
        while True:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        assert paths(machine.survey()) == [path]


def test_linked_places_and_sockets_are_followed(machine: Machine) -> None:
    real = machine.root / "private"
    machine.listen(real / "wg0.sock")
    machine.system.symlink_to("private")
    assert paths(machine.survey()) == [machine.system / "wg0.sock"]
    machine.data.mkdir(parents=True)
    (machine.data / "utun5.sock").symlink_to(real / "wg0.sock")
    machine.system.unlink()
    assert paths(machine.survey()) == [machine.data / "utun5.sock"]


# -- skipped ---------------------------------------------------------------------------------------


def test_only_sockets_named_sock_are_devices(machine: Machine) -> None:
    for name in ("agent", "agent.socket", "wg0.sock.old", "wg0.12aB", "sock"):
        machine.listen(machine.data / name)
    (machine.data / "Documents").mkdir()
    (machine.data / "home.name").write_text("utun5\n")
    result = machine.survey()
    assert result.sockets == ()
    assert result.notes == ()


def test_what_is_no_device_is_noted(machine: Machine) -> None:
    machine.system.mkdir()
    (machine.system / "file.sock").touch()
    (machine.system / "dir.sock").mkdir()
    os.mkfifo(machine.system / "fifo.sock")
    machine.listen(machine.system / "dgram.sock", socket.SOCK_DGRAM)
    machine.listen(machine.system / ".sock")
    machine.listen(machine.system / ("x" * 16 + ".sock"))
    machine.listen(machine.system / "a\x1b[2J.sock")
    machine.listen(machine.system / "wg0.sock")
    result = machine.survey()
    assert paths(result) == [machine.system / "wg0.sock"]
    reasons = {path.name: reason for path, reason in notes(result).items()}
    assert reasons.keys() == {
        "file.sock", "dir.sock", "fifo.sock", "dgram.sock", ".sock", "x" * 16 + ".sock",
        "a\x1b[2J.sock",
    }  # fmt: skip
    assert all("not a socket" in reasons[f"{kind}.sock"] for kind in ("file", "dir", "fifo"))
    assert "not a stream socket" in reasons["dgram.sock"]
    assert "\x1b" not in "".join(reasons.values())


def test_dangling_links_and_loops_are_noted(machine: Machine) -> None:
    machine.listen(machine.system / "wg0.sock")
    (machine.system / "gone.sock").symlink_to("nowhere")
    (machine.system / "loop.sock").symlink_to("loop.sock")
    machine.data.parent.mkdir(parents=True)
    machine.data.symlink_to("nowhere")
    result = machine.survey()
    assert paths(result) == [machine.system / "wg0.sock"]
    assert set(notes(result)) == {
        machine.system / "gone.sock",
        machine.system / "loop.sock",
        machine.data,
    }
    assert "link to nothing" in notes(result)[machine.system / "gone.sock"]


def test_a_dead_socket_is_reported_and_never_deleted(machine: Machine) -> None:
    machine.die(machine.system / "wg0.sock")
    machine.listen(machine.system / "wg1.sock")
    result = machine.survey()
    assert paths(result) == [machine.system / "wg1.sock"]
    assert "refuses connections" in notes(result)[machine.system / "wg0.sock"]
    assert (machine.system / "wg0.sock").is_socket()


def test_a_dead_socket_does_not_hide_a_live_one_of_its_name(machine: Machine) -> None:
    machine.die(machine.system / "utun5.sock")
    machine.listen(machine.data / "utun5.sock")
    result = machine.survey()
    assert paths(result) == [machine.data / "utun5.sock"]
    assert set(notes(result)) == {machine.system / "utun5.sock"}


def test_the_same_name_twice_is_listed_once_and_names_both(machine: Machine) -> None:
    machine.listen(machine.system / "utun5.sock")
    machine.listen(machine.data / "utun5.sock")
    result = machine.survey()
    assert paths(result) == [machine.system / "utun5.sock"]
    assert str(machine.system / "utun5.sock") in notes(result)[machine.data / "utun5.sock"]


def test_the_same_socket_by_two_names_is_listed_once(machine: Machine) -> None:
    machine.listen(machine.system / "wg0.sock")
    machine.data.mkdir(parents=True)
    (machine.data / "linked.sock").symlink_to(machine.system / "wg0.sock")
    os.link(machine.system / "wg0.sock", machine.data / "hard.sock")
    result = machine.survey()
    assert paths(result) == [machine.system / "wg0.sock"]
    assert set(notes(result)) == {machine.data / "linked.sock", machine.data / "hard.sock"}
    for reason in notes(result).values():
        assert str(machine.system / "wg0.sock") in reason


def test_the_same_directory_by_two_names_is_one_note(machine: Machine) -> None:
    machine.listen(machine.system / "wg0.sock")
    machine.listen(machine.system / "wg1.sock")
    link = machine.root / "link"
    link.symlink_to("run")
    result = machine.survey(directory=link)
    assert paths(result) == [link / "wg0.sock", link / "wg1.sock"]
    assert set(notes(result)) == {machine.system}
    assert str(link) in notes(result)[machine.system]


def test_knocking_asks_nothing(machine: Machine) -> None:
    server = machine.listen(machine.system / "wg0.sock")
    machine.survey()
    client, _ = server.accept()
    with client:
        assert client.recv(1) == b""


# -- broken places ---------------------------------------------------------------------------------


def refuse(place: Path, number: int) -> Callable[[Path], Iterator[Path]]:
    real = Path.iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        if self == place:
            raise OSError(number, os.strerror(number), str(self))
        return real(self)

    return iterdir


@pytest.mark.parametrize("broken", ["system", "data"])
@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EPERM, "Full Disk Access"),
        (errno.EACCES, "as its owner or as root"),
        (errno.EIO, "Input/output error"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_an_unreadable_place_never_hides_the_others(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, broken: str, number: int, hint: str
) -> None:
    machine.listen(machine.system / "wg0.sock")
    machine.listen(machine.data / "utun5.sock")
    place = machine.system if broken == "system" else machine.data
    monkeypatch.setattr(Path, "iterdir", refuse(place, number))
    result = machine.survey()
    (found,) = result.sockets
    assert found.place != place
    assert notes(result).keys() == {place}
    assert hint in notes(result)[place]
    assert os.strerror(number) in notes(result)[place]


def test_two_unreadable_places_are_both_told_with_their_own_reason(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.system.touch()  # a file
    machine.data.mkdir(parents=True)
    monkeypatch.setattr(Path, "iterdir", refuse(machine.data, errno.EPERM))
    reasons = notes(machine.survey())
    assert "Not a directory" in reasons[machine.system]
    assert "Operation not permitted" in reasons[machine.data]


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_directory_that_may_not_be_read(machine: Machine) -> None:
    machine.listen(machine.system / "wg0.sock").close()
    (machine.system / "wg0.sock").unlink()
    live = machine.listen(machine.system / "wg1.sock")
    (machine.system / "wg1.sock").chmod(0o777)
    machine.listen(machine.data / "utun5.sock")
    machine.data.chmod(0)
    with unprivileged():
        result = machine.survey()
    machine.data.chmod(0o700)
    assert paths(result) == [machine.system / "wg1.sock"]
    assert "as its owner or as root" in notes(result)[machine.data]
    live.close()


def test_a_socket_that_may_not_be_connected_to_is_still_a_device(machine: Machine) -> None:
    machine.listen(machine.system / "wg0.sock")
    (machine.system / "wg0.sock").chmod(0)
    with unprivileged():
        result = machine.survey()
    assert paths(result) == [machine.system / "wg0.sock"]
    assert stat.S_IMODE((machine.system / "wg0.sock").stat().st_mode) == 0


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HOME": ""},
        {"HOME": "relative/home"},
        {"HOME": "~"},
        {"HOME": "/a\0b"},
        {"HOME": "relative", "SUDO_USER": "nobody-knows-him"},
    ],
)
def test_without_a_home_the_system_directory_still_counts(
    machine: Machine, environment: dict[str, str]
) -> None:
    machine.listen(machine.system / "wg0.sock")
    result = machine.survey(environment=environment)
    assert paths(result) == [machine.system / "wg0.sock"]
    assert result.places == (machine.system,)
    reasons = [note.reason for note in result.notes]
    assert len(reasons) == len(environment) or environment == {}
    assert reasons[0].startswith("HOME is ")
    for reason in reasons:
        assert "None" not in reason
        assert "null" not in reason
        assert reason.isprintable()


def test_what_cannot_be_a_path_or_a_bundle_id_is_a_note(machine: Machine) -> None:
    machine.listen(machine.system / "wg0.sock")
    for directory in (Path("/a\0b"), Path("/\ud800"), Path("/" + "x" * 5000)):
        result = machine.survey(directory=directory, bundle_ids=("../../..", APP, ""))
        assert paths(result) == [machine.system / "wg0.sock"]
        assert result.places == (directory, machine.system, machine.data)
        assert len(result.notes) == 3


def test_the_working_directory_may_be_gone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.listen(machine.system / "wg0.sock")
    gone = machine.root / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert paths(machine.survey(directory=Path("run"))) == [machine.system / "wg0.sock"]


def test_a_relative_directory_is_found_from_anywhere_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.listen(machine.root / "own" / "wg0.sock")
    monkeypatch.chdir(machine.root)
    assert paths(machine.survey(directory=Path("own"))) == [machine.root / "own" / "wg0.sock"]
