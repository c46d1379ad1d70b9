"""Disks are full: no packet is lost to that, no file half written, and it is told afterwards."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quick.scene import FAR_ADDRESSES, FULL_TUNNEL, Scene, assert_same
from tests.testbed import Testbed, Tunnel, daemon_command, only_wgd, require, uapi_set, wait_until
from tests.testbed.limits import Disk

pytestmark = [pytest.mark.netns, only_wgd("it goes on beside a full disk")]

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+ level=\w+ interface=\S+ .*event=\w+.*")
KEY_NAMES = ["LOCAL_STATIC_PRIVATE", "REMOTE_STATIC_PUBLIC", "LOCAL_EPHEMERAL_PRIVATE"]
KEY_LINE = re.compile(rf"#+|({'|'.join(KEY_NAMES)})_KEY = \S{{44}}")
FIRST_NOTE_SIZE = 72 + 72 + 75
"""Bytes of a handshake's three lines in the key log."""
REFUSED_SETS = 200


@pytest.fixture(scope="module")
def shared_scene() -> Iterator[Scene]:
    require("nft")
    with Testbed() as bed:
        yield Scene.build(bed)


@pytest.fixture
def scene(shared_scene: Scene) -> Iterator[Scene]:
    yield shared_scene
    shared_scene.clear()


def test_a_full_disk_under_log_and_key_log_stops_nothing(engine: str) -> None:
    require()
    with (
        Testbed(environment={"WGD_DATAPLANE": engine}) as bed,
        Disk(bed.directory / "disk") as disk,
    ):
        log, key_log = disk.path / "log", disk.path / "keys"
        key_log.touch(0o600)
        # Its page, which a full disk does not take away, has room for a note and a bit of another.
        key_log.write_text("#" * (os.sysconf("SC_PAGE_SIZE") - FIRST_NOTE_SIZE - 21) + "\n")
        command = shlex.join([*daemon_command(), "--keylog", str(key_log)])
        tunnel = Tunnel.build(bed, left_command=["sh", "-c", f'exec {command} "$@" >{log}', "sh"])
        left = tunnel.left
        daemon = left.daemon
        tunnel.assert_works(versions=(4,))
        wait_until(lambda: "response_received" in log.read_text(), what="the log")
        assert len(key_log.read_text().splitlines()) == 4

        disk.fill()
        for _ in range(REFUSED_SETS):  # each makes a line
            assert uapi_set(daemon.socket_path, "foo=1\n") == ["errno=-22"]
        left.bounce()  # and a handshake, whose keys find no room
        tunnel.assert_works(versions=(4,))
        assert key_log.stat().st_size == os.sysconf("SC_PAGE_SIZE"), "a note was cut off"

        disk.free()
        left.bounce()
        tunnel.assert_works(versions=(4,))
        wait_until(lambda: "event=log_lines_lost" in log.read_text(), what="that lines were lost")
        lines = log.read_text().splitlines()
        broken = [line for line in lines if not LOG_LINE.fullmatch(line)]
        assert len(broken) <= 1, broken  # the one that was cut off
        lost = [
            int(one) for one in re.findall(r"event=log_lines_lost count=(\d+)", "\n".join(lines))
        ]
        assert REFUSED_SETS // 4 < sum(lost) < REFUSED_SETS + 20
        key_lines = key_log.read_text().splitlines()
        assert sum(not KEY_LINE.fullmatch(line) for line in key_lines) == 1, key_lines
        assert [line.split("_KEY")[0] for line in key_lines[-3:]] == KEY_NAMES


def in_private_run(scene: Scene, *commands: str) -> list[tuple[int, str]]:
    """Run shell commands with a /run/wgd of 16 KiB of their own.

    Returns exit status and stderr of each.
    """
    script = "mount -t tmpfs -o size=16k,mode=755 tmpfs /run/wgd\n"
    for n, command in enumerate(commands):
        script += f"({command}) 2>{scene.bed.directory}/stderr{n}; echo $?\n"
    output = scene.run("unshare", "--mount", "sh", "-c", script).stdout
    statuses = [int(line) for line in output.split()]
    assert len(statuses) == len(commands), output
    return [
        (status, (scene.bed.directory / f"stderr{n}").read_text())
        for n, status in enumerate(statuses)
    ]


def filling(scene: Scene, hook: str) -> Path:
    """Write a file of which a hook fills /run/wgd."""
    name = scene.interface()
    mark = scene.bed.directory / name
    return scene.write(
        name,
        "Address = 10.77.0.1/24, fd77::1/64\n"
        f"{hook} = head -c 1M /dev/zero >/run/wgd/filler || true\n"
        f"PostUp = touch {mark}\nPostDown = rm -f {mark}",
        FULL_TUNNEL,
    )


def test_a_journal_that_finds_no_room_undoes_everything(scene: Scene) -> None:
    path = filling(scene, "PreUp")
    before = scene.state(path.stem)
    up, ls = in_private_run(scene, f"wgdctl up {path}", "ls -A /run/wgd >&2")
    assert up[0] == 1
    assert "No space left on device" in up[1].splitlines()[-1], up[1]
    assert ls == (0, "filler\n")
    assert_same(scene.state(path.stem), before)


def test_down_needs_no_room(scene: Scene) -> None:
    path = filling(scene, "PostUp")
    before = scene.state(path.stem)
    results = in_private_run(
        scene,
        f"wgdctl up {path}",
        f"ping -c 1 -W 5 {FAR_ADDRESSES[0]} >/dev/null",
        f"wgdctl down {path}",
        "ls -A /run/wgd >&2",
    )
    assert [status for status, _ in results] == [0, 0, 0, 0], results
    assert results[-1][1] == "filler\n"
    assert_same(scene.state(path.stem), before)


def test_a_daemon_with_a_config_and_no_room_for_its_journal_does_not_start(scene: Scene) -> None:
    path = filling(scene, "PreUp")
    before = scene.state(path.stem)
    up, ls = in_private_run(scene, f"wgd --config {path} {path.stem}", "ls -A /run/wgd >&2")
    assert up[0] == 1
    assert "No space left on device" in up[1].splitlines()[-1], up[1]
    assert ls == (0, "filler\n")
    assert_same(scene.state(path.stem), before)


def test_a_save_that_finds_no_room_leaves_the_file_whole(scene: Scene) -> None:
    path = scene.write(scene.interface())
    with Disk(scene.bed.directory / "disk") as disk:
        moved = disk.path / path.name
        moved.touch(0o600)
        moved.write_bytes(path.read_bytes())
        scene.wgdctl("up", moved)
        before = moved.read_bytes()
        disk.fill()
        assert "No space left on device" in scene.wgdctl_error("save", moved)
        assert sorted(each.name for each in disk.path.iterdir()) == ["filler", path.name]
        assert moved.read_bytes() == before
        disk.free()
        scene.wgdctl("save", moved)
        assert moved.read_bytes() != before
        scene.wgdctl("down", moved)
