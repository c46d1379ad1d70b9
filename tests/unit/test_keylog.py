"""The key log: the lines Wireshark reads, a file of ours alone, and no failure that hurts."""

import base64
import logging
import os
import re
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wgd.errors import WgdError
from wgd.keylog import KeyLog

STATIC, REMOTE, OTHER, EPHEMERAL, PRESHARED = (bytes([n]) * 32 for n in range(1, 6))


def line(name: str, key: bytes) -> str:
    return f"{name} = {base64.b64encode(key).decode()}"


LOCAL = line("LOCAL_STATIC_PRIVATE_KEY", STATIC)
FIRST = line("REMOTE_STATIC_PUBLIC_KEY", REMOTE)
SECOND = line("REMOTE_STATIC_PUBLIC_KEY", OTHER)
ONCE = line("LOCAL_EPHEMERAL_PRIVATE_KEY", EPHEMERAL)
SHARED = line("PRESHARED_KEY", PRESHARED)


def note(log: KeyLog, remote: bytes = REMOTE, preshared_key: bytes = bytes(32)) -> None:
    log.note(
        local_static=STATIC,
        remote_static=remote,
        local_ephemeral=EPHEMERAL,
        preshared_key=preshared_key,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.log"


@pytest.fixture
def log(path: Path) -> Iterator[KeyLog]:
    log = KeyLog(path)
    yield log
    log.close()


def lines(path: Path) -> list[str]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return text.splitlines()


# -- the lines -------------------------------------------------------------------------------------


def test_static_keys_come_first_and_only_when_they_change(log: KeyLog, path: Path) -> None:
    note(log)
    note(log)
    note(log, OTHER)
    note(log)
    assert lines(path) == [LOCAL, FIRST, ONCE, ONCE, LOCAL, SECOND, ONCE, LOCAL, FIRST, ONCE]


def test_a_preshared_key_follows_its_ephemeral_key(log: KeyLog, path: Path) -> None:
    note(log, preshared_key=PRESHARED)
    note(log)
    assert lines(path) == [LOCAL, FIRST, ONCE, SHARED, ONCE]


def test_a_note_is_one_write(log: KeyLog, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write(_fd: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    note(log, preshared_key=PRESHARED)
    assert len(written) == 1
    assert written[0].count(b"\n") == 4


def test_what_is_there_stays_and_two_may_write(path: Path) -> None:
    logs = [KeyLog(path), KeyLog(path)]
    for log in logs:
        note(log)
    assert lines(path) == [LOCAL, FIRST, ONCE] * 2
    for log in logs:
        log.close()


# -- the file --------------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone_whatever_the_umask(path: Path) -> None:
    umask = os.umask(0)
    try:
        KeyLog(path).close()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o610])
def test_a_file_that_others_can_open_is_refused(path: Path, mode: int) -> None:
    path.write_text("before\n")
    path.chmod(mode)
    with pytest.raises(WgdError, match=f"{mode:04o}.*chmod 0600"):
        KeyLog(path)
    assert path.read_text() == "before\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_somebody_elses_file_is_refused(path: Path) -> None:
    path.touch(0o600)
    os.chown(path, 12345, 12345)
    with pytest.raises(WgdError, match="belongs to user 12345"):
        KeyLog(path)


@pytest.mark.parametrize("there", [True, False], ids=["link", "dangling link"])
def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path, there: bool) -> None:
    target = tmp_path / "target"
    if there:
        target.touch(0o600)
    path.symlink_to(target)
    with pytest.raises(WgdError, match="symbolic link"):
        KeyLog(path)
    assert target.exists() == there


def test_what_is_no_file_is_refused_and_nobody_waits(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(WgdError, match="no regular file"):
        KeyLog(path)
    os.close(reader)
    for bad in (path, tmp_path, tmp_path / "missing" / "file", Path("a\0b")):
        with pytest.raises(WgdError, match="cannot open --keylog"):
            KeyLog(bad)


def test_a_refused_file_leaves_no_descriptor_open(path: Path) -> None:
    path.touch(0o644)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(WgdError):
            KeyLog(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- failures, and what is said --------------------------------------------------------------------


def test_it_warns_and_names_no_key(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        log = KeyLog(path)
        note(log, preshared_key=PRESHARED)
        log.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(path) in record.getMessage()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    return [re.sub("path='[^']*' ", "", message) for message in found]


def test_several_failures_are_one_line_and_static_keys_come_again(
    log: KeyLog, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    note(log)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            note(log)
            note(log)
        note(log)
    assert messages(caplog)[-2:] == ["event=keylog_failed reason='No space left on device'"] * 2
    assert lines(path) == [LOCAL, FIRST, ONCE] * 3


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_line_that_found_no_room_spoils_no_other(log: KeyLog, path: Path) -> None:
    note(log)
    with files_of_at_most(path.stat().st_size + 10):
        note(log)  # ten bytes of it
        note(log)  # nothing
    note(log)
    assert lines(path) == [LOCAL, FIRST, ONCE, ONCE[:10], LOCAL, FIRST, ONCE]


def test_nothing_is_written_after_the_end(path: Path) -> None:
    log = KeyLog(path)
    log.close()
    log.close()
    note(log)
    assert path.read_text() == ""
