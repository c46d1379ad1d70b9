"""systemd's convention for handed descriptors: what is understood, and what is refused."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wgd.errors import WgdError
from wgd.service.descriptors import Handed, take

ROOT = Path(__file__).parents[2]


def in_a_process(script: str, environment: dict[str, str], count: int) -> str:
    """Run a script with `count` open descriptors from 3 on; return what it prints."""
    opening = "".join(f"exec {fd}</dev/null; " for fd in range(3, 3 + count))
    completed = subprocess.run(
        [
            "bash",
            "-c",
            f'{opening}LISTEN_PID=${{LISTEN_PID-$$}} exec "$@"',
            "bash",
            sys.executable,
            "-c",
            script,
        ],
        env={**os.environ, **environment},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return completed.stdout


TAKE = """
import dataclasses, fcntl, json, os
from wgd.errors import WgdError
from wgd.service.descriptors import take
try:
    handed = dataclasses.asdict(take(os.environ, os.getpid()))
    flags = [fcntl.fcntl(fd, fcntl.F_GETFD) for fd in handed["tun"]]
    left = [name for name in os.environ if name.startswith("LISTEN_")]
    print(json.dumps([handed, flags, left]))
except WgdError as error:
    print(error)
"""


def taken(names: str, count: int | None = None, **environment: str) -> str:
    count = len(names.split(":")) if count is None else count
    variables = {"LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}
    return in_a_process(TAKE, {**variables, **environment}, min(count, 9))


def test_every_name_finds_its_place_and_is_not_passed_on() -> None:
    handed, flags, left = json.loads(taken("tun:uapi:tun:state:janitor"))
    assert handed == {"tun": [3, 5], "uapi": 4, "uapi_own": None, "state": 6, "janitor": 7}
    assert flags == [fcntl.FD_CLOEXEC] * 2
    assert left == []


def test_a_unit_s_socket_wins_over_our_own() -> None:
    handed, _, _ = json.loads(taken("uapi-own:uapi"))
    assert (handed["uapi"], handed["uapi_own"]) == (4, None)


def test_what_is_for_another_process_is_not_touched() -> None:
    handed, _, _ = json.loads(taken("tun", LISTEN_PID="1"))
    assert handed["tun"] == []


def test_without_anything_there_is_nothing() -> None:
    assert take({}, 1) == Handed()
    assert not Handed().is_some
    assert take({"LISTEN_PID": "1", "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""}, 1) == Handed()


@pytest.mark.parametrize(
    ("names", "count", "said"),
    [
        ("wgd@wg0.socket", 1, "FileDescriptorName=uapi"),
        ("", 1, "FileDescriptorName=uapi"),
        ("tun", 2, "does not name 2 descriptors"),
        ("uapi:uapi", 2, "2 descriptors are called uapi"),
        ("state:state", 2, "2 descriptors are called state"),
    ],
)
def test_what_cannot_be_meant_is_refused(names: str, count: int, said: str) -> None:
    assert said in taken(names, count)


@pytest.mark.parametrize("text", ["x", "-1", "99999", "9" * 20, "1.5"])
def test_a_count_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(WgdError, match="LISTEN_FDS"):
        take({"LISTEN_PID": "7", "LISTEN_FDS": text, "LISTEN_FDNAMES": "tun"}, 7)


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    assert "not open" in in_a_process(TAKE, {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "tun:tun"}, 1)


HAND_OVER = """
import os
from wgd.service.descriptors import hand_over, take
# As entangled as can be: each has a number that another will get.
files = []
for n in range(6):
    fd = os.memfd_create(str(n))
    os.write(fd, b"%d" % n)
    files.append(fd)
named = [("tun", fd) for fd in reversed(files)]
environment = hand_over(named, {"KEPT": "1"}, os.getpid())
found = [os.pread(fd, 9, 0).decode() for fd in range(3, 9)]
inherited = [os.get_inheritable(fd) for fd in range(3, 9)]
open_ones = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[3:-1]
print(found, inherited, open_ones, environment["LISTEN_FDS"], environment["KEPT"],
      take(environment, os.getpid()).tun)
"""


def test_handing_over_moves_each_to_its_number() -> None:
    expected = (
        "['5', '4', '3', '2', '1', '0'] [True, True, True, True, True, True] [3, 4, 5, 6, 7, 8] "
        "6 1 (3, 4, 5, 6, 7, 8)\n"
    )
    assert in_a_process(HAND_OVER, {}, 0) == expected
