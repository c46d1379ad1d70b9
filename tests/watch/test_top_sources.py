"""Where `top` gets its figures: the status socket, a wgd's UAPI socket, another daemon's."""

import dataclasses
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.fake_uapi import FakeUapi
from tests.watch.background import served_in_background
from tests.watch.statuses import device, key, peer
from wgd.ctl.session import Session
from wgd.ctl.top.sources import Reader, Reading

WGDCTL: tuple[str, ...] = (sys.executable, "-m", "wgd.ctl", "--uapi-dir")
PUBLIC_KEY = "01" * 32
PRIVATE_KEY = "02" * 32
OTHER_STATE = (
    f"private_key={PRIVATE_KEY}\nlisten_port=51820\npublic_key={PUBLIC_KEY}\n"
    "endpoint=192.0.2.5:4\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\n"
    "tx_bytes=7\nrx_bytes=9\npersistent_keepalive_interval=0\nallowed_ip=10.9.0.1/32\n"
)


@pytest.fixture
def uapi(tmp_path: Path) -> Path:
    (tmp_path / "uapi").mkdir()
    return tmp_path / "uapi"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def reader(uapi: Path, run: Path, *names: str) -> Reader:
    session = Session(uapi, (), {"HOME": "/nonexistent"})
    return Reader(session, names, run)


def only(reading: Reading, name: str) -> Reading:
    """Leave out what else runs on this machine."""
    return Reading(tuple(each for each in reading.statuses if each.interface == name), ())


def test_the_status_socket_is_enough(uapi: Path, run: Path) -> None:
    status = device(peer(1), peer(2))
    with served_in_background(f"unix:{run / 'wg7.sock'}", lambda: status):
        assert only(reader(uapi, run).read(), "wg7").statuses == (status,)
        assert reader(uapi, run, "wg7").read() == Reading((status,), ())


def test_the_socket_of_an_unprivileged_daemon_is_in_a_directory_of_its_own(
    uapi: Path, run: Path
) -> None:
    status = device(peer(1))
    with served_in_background(f"unix:{run / 'wg7' / 'wg7.sock'}", lambda: status):
        assert only(reader(uapi, run).read(), "wg7").statuses == (status,)
        assert reader(uapi, run, "wg7").read() == Reading((status,), ())
        # What root's daemon has left behind is not in its way.
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(run / "wg7.sock"))
        assert reader(uapi, run, "wg7").read() == Reading((status,), ())


def test_another_daemon_is_shown_by_its_counters_and_without_its_secrets(
    uapi: Path, run: Path
) -> None:
    with FakeUapi("wg7", OTHER_STATE, uapi):
        reading = reader(uapi, run, "wg7")
        first, second = reading.read(), reading.read()
    (status,) = first.statuses
    assert (status.interface, status.version, status.listen_port) == ("wg7", "", 51820)
    (shown,) = status.peers
    assert (shown.received_bytes, shown.sent_bytes) == (9, 7)
    assert shown.endpoint == "192.0.2.5:4"
    assert shown.allowed_ips == ("10.9.0.1/32",)
    assert PRIVATE_KEY not in repr(status)
    assert bytes.fromhex(PRIVATE_KEY).hex() not in str(dataclasses.asdict(status))
    (later,) = second.statuses
    assert later.now_ns > status.now_ns


def test_an_interface_that_is_not_there_is_a_problem_and_no_other_is_hidden(
    uapi: Path, run: Path
) -> None:
    with served_in_background(f"unix:{run / 'wg7.sock'}", device):
        reading = reader(uapi, run, "wg7", "nobody0").read()
    assert [status.interface for status in reading.statuses] == ["wg7"]
    (problem,) = reading.problems
    assert "nobody0" in problem
    assert "\n" not in problem


def test_a_daemon_that_restarts_as_another_is_found_again(uapi: Path, run: Path) -> None:
    looks = reader(uapi, run, "wg7")
    with FakeUapi("wg7", OTHER_STATE, uapi):
        assert looks.read().statuses[0].version == ""
    assert looks.read().statuses == ()
    with served_in_background(f"unix:{run / 'wg7.sock'}", device):
        assert looks.read().statuses == (device(),)


def test_what_a_killed_daemon_left_behind_is_no_interface(uapi: Path, run: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(run / "wg7.sock"))
    assert not any("wg7" in problem for problem in reader(uapi, run).read().problems)
    (problem,) = reader(uapi, run, "wg7").read().problems
    assert "nobody listens" in problem


@contextmanager
def liar(path: Path, answer: bytes) -> Iterator[None]:
    """Listen at `path` and answer everybody with these bytes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.recv(4096)
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xfe nonsense",
        b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"peers": 3}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000,
        b'HTTP/1.1 200 OK\r\n\r\n{"interface":"wg7","peers":' + b"[" * 200_000,
    ],
)
def test_a_status_socket_that_talks_nonsense_is_passed_by(
    uapi: Path, run: Path, answer: bytes
) -> None:
    with liar(run / "wg7.sock", answer):
        alone = reader(uapi, run, "wg7").read()
        assert alone.statuses == ()
        assert len(alone.problems) == 1
        with FakeUapi("wg7", OTHER_STATE, uapi):
            assert reader(uapi, run, "wg7").read().statuses[0].listen_port == 51820


def test_once_prints_a_table_for_scripts(uapi: Path) -> None:
    with FakeUapi("wg7", OTHER_STATE, uapi):
        done = subprocess.run(
            [*WGDCTL, uapi, "top", "--once", "--interval=0.1", "wg7"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("wg7 ")
    assert lines[1].split() == ["PEER", "ENDPOINT", "AGE", "RX/s▾", "TX/s", "TRAFFIC", "NOTE"]
    assert "192.0.2.5:4" in lines[2]
    assert "never" in lines[2]
    assert key(1) not in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--once", "nobody0"], "nobody0"),
        (["--interval", "0"], "--interval"),
        (["--interval"], "--interval"),
        (["--often"], "no option"),
        ([], "needs a terminal"),
    ],
)
def test_a_wrong_usage_is_one_line_and_status_1(uapi: Path, words: list[str], says: str) -> None:
    done = subprocess.run(
        [*WGDCTL, uapi, "top", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert says in done.stderr.splitlines()[0]
