"""What answers on a socket for watching may be anybody's: its answer is bounded, not shown."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.watch.background import served_in_background
from tests.watch.statuses import device, peer
from wgd.ctl import statuses
from wgd.ctl.session import report
from wgd.ctl.statuses import WatchError, watched_status
from wgd.errors import WgdError

OK = b"HTTP/1.1 200 OK\r\n\r\n"


@contextmanager
def answering(path: Path, *parts: bytes, seconds: float = 0) -> Iterator[None]:
    """Answer one client with these parts, with a pause after each."""
    is_over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(10)

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                try:
                    for part in parts:
                        client.sendall(part)
                        if seconds and is_over.wait(seconds):
                            return
                except OSError:
                    pass  # it has had enough

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join(20)


def test_the_status_comes_whole(tmp_path: Path) -> None:
    status = device(*(peer(number) for number in range(1, 200)))
    with served_in_background(f"unix:{tmp_path / 'wg7.sock'}", lambda: status):
        assert watched_status(tmp_path / "wg7.sock") == status


@pytest.mark.parametrize("start", [b"", b'{"interface":"wg7","peers":'])
def test_a_bomb_of_brackets_is_told(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "wg7.sock"
    with answering(path, OK + start + b"[" * 200_000), pytest.raises(WatchError, match="wg7"):
        watched_status(path)


def test_an_answer_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statuses, "MAX_STATUS_SIZE", 1 << 20)
    path = tmp_path / "wg7.sock"
    with (
        answering(path, OK, *(b" " * 65536 for _ in range(100))),
        pytest.raises(WatchError, match="too long"),
    ):
        watched_status(path)


def test_who_sends_byte_by_byte_has_no_more_time(tmp_path: Path) -> None:
    path = tmp_path / "wg7.sock"
    began = time.monotonic()
    with (
        answering(path, OK, *(b" " for _ in range(100)), seconds=0.05),
        pytest.raises(WatchError, match="timed out"),
    ):
        watched_status(path, timeout_seconds=0.3)
    assert time.monotonic() - began < 2  # all of it would take 5 seconds


@pytest.mark.parametrize(
    "answer",
    [
        b"\x1b]0;pwned\x07\x1b[31mHELLO\r\n\r\n",
        b"HTTP/1.1 500 \x1b[31m\r\n\r\n{}",
        OK + b"\xff\x1b[31m",
        OK + b'{"\x1b[31m',
    ],
)
def test_an_answer_cannot_steer_the_terminal(
    tmp_path: Path, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wg7.sock"
    with answering(path, answer), pytest.raises(WatchError) as caught:
        watched_status(path)
    assert "\x1b" not in str(caught.value)
    report(WgdError("it said \x1b[31m and\nso on"))
    assert capsys.readouterr().err == "wgdctl: it said \\x1b[31m and\\nso on\n"
