"""Proves when WG_TUN_NAME_FILE is written, and that wg-quick would trust it."""

import logging
import stat
import sys
from pathlib import Path

import pytest

from tests.testbed.limits import no_room_in_files
from wgd.tun.name_file import write_name_file


@pytest.fixture(autouse=True)
def _darwin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")


def test_the_name_a_newline_and_mode_0400(tmp_path: Path) -> None:
    path = tmp_path / "wg0.name"
    write_name_file("utun", "utun7", {"WG_TUN_NAME_FILE": str(path)})
    assert path.read_bytes() == b"utun7\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_file_that_was_left_behind_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "wg0.name"
    path.write_bytes(b"utun12345\nmore\n")
    path.chmod(0o644)
    write_name_file("utun", "utun7", {"WG_TUN_NAME_FILE": str(path)})
    assert path.read_bytes() == b"utun7\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


@pytest.mark.parametrize("requested", ["utun7", "utun0", "tun", "wg0"])
def test_who_asks_for_a_certain_interface_knows_its_name(tmp_path: Path, requested: str) -> None:
    path = tmp_path / "wg0.name"
    write_name_file(requested, "utun7", {"WG_TUN_NAME_FILE": str(path)})
    assert not path.exists()


@pytest.mark.parametrize("environment", [{}, {"WG_TUN_NAME_FILE": ""}])
def test_without_a_file_nothing_is_written(environment: dict[str, str]) -> None:
    write_name_file("utun", "utun7", environment)


def test_elsewhere_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    path = tmp_path / "wg0.name"
    write_name_file("utun", "utun7", {"WG_TUN_NAME_FILE": str(path)})
    assert not path.exists()


def test_a_failure_is_logged_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "missing" / "wg0.name"
    with caplog.at_level(logging.ERROR):
        write_name_file("utun", "utun7", {"WG_TUN_NAME_FILE": str(path)})
    assert caplog.messages == [
        f"event=name_file_failed path={str(path)!r} reason='No such file or directory'"
    ]


@pytest.mark.parametrize("room", [0, 3])
def test_on_a_full_disk_no_part_of_a_name_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    path = tmp_path / "wg0.name"
    with no_room_in_files(room):
        write_name_file("utun", "utun7", {"WG_TUN_NAME_FILE": str(path)})
    assert not path.exists()
    assert caplog.messages == [f"event=name_file_failed path={str(path)!r} reason='File too large'"]
