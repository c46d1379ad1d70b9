"""Clients of the configuration socket that die, at every line and anywhere: whole or nothing."""

import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.clients import big_set, lines_of
from tests.testbed import Daemon, Testbed, UapiConnection, only_wgd, uapi_set, wait_until

pytestmark = [pytest.mark.netns, only_wgd("a set of which a part has come changes nothing")]

PEERS = 200
RANDOM_ENDS = 200
KILLS = 25
SEED = 6
MIB = 1 << 20


@pytest.fixture
def daemon(testbed: Testbed) -> Iterator[Daemon]:
    daemon = testbed.daemon(testbed.namespace())
    assert uapi_set(daemon.socket_path, f"public_key={'77' * 32}\nallowed_ip=10.0.0.0/8\n") == [
        "errno=0"
    ]
    yield daemon
    assert daemon.is_running()


def memory(pid: int) -> int:
    """Return the bytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def leave_after(daemon: Daemon, data: bytes) -> None:
    """Send this and close, which is all that the daemon sees of a kill."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(daemon.socket_path))
        client.sendall(data)


def test_gone_at_every_line_and_anywhere(daemon: Daemon) -> None:
    before = daemon.get()
    text = big_set(PEERS, SEED)
    lines = lines_of(text)
    assert len(lines) > 800
    chance = random.Random(SEED)
    ends = [len(b"".join(lines[:n])) for n in range(1, len(lines))]
    ends += [chance.randrange(1, len(text) - 1) for _ in range(RANDOM_ENDS)]
    descriptors, used = open_descriptors(daemon.pid), 0
    for n, end in enumerate(ends):
        leave_after(daemon, text[:end])
        if n % 100 == 99:
            assert daemon.get() == before
            used = used or memory(daemon.pid)
    assert daemon.get() == before
    assert memory(daemon.pid) - used < 16 * MIB
    wait_until(lambda: open_descriptors(daemon.pid) <= descriptors, what="they are forgotten")
    # The end of the last line is not yet the end of the message.
    leave_after(daemon, text[:-1])
    assert daemon.get() == before
    # With that, it has come whole, and counts without its client.
    leave_after(daemon, text)
    wait_until(lambda: len(daemon.get().peers) == PEERS, what="the whole set")


def test_killed_while_it_sends(daemon: Daemon) -> None:
    """Real processes, killed amid a set of megabytes at random moments."""
    before = daemon.get()
    text = big_set(20_000, SEED)
    chance = random.Random(SEED)
    for _ in range(KILLS):
        pid = os.fork()
        if pid == 0:
            try:
                leave_after(daemon, text)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0.001, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert daemon.get() == before


def test_killed_while_it_reads_and_those_who_stay_amid_a_line(daemon: Daemon) -> None:
    text = big_set(PEERS, SEED)
    assert uapi_set(daemon.socket_path, text.decode().removeprefix("set=1\n")[:-1]) == ["errno=0"]
    descriptors, used = open_descriptors(daemon.pid), memory(daemon.pid)
    for n in range(200):
        with UapiConnection(daemon.socket_path) as client:
            client.send("get=1\n\n" * 3)
            client.socket.recv(1 + 100 * n)
    staying = []
    try:
        for _ in range(100):
            staying.append(UapiConnection(daemon.socket_path))
            staying[-1].send("set=1\npublic_key=" + "0" * 60_000)
        started = time.monotonic()
        assert len(daemon.get().peers) == PEERS
        assert time.monotonic() - started < 2
        assert memory(daemon.pid) - used < 48 * MIB
    finally:
        for client in staying:
            client.socket.close()
    wait_until(lambda: open_descriptors(daemon.pid) <= descriptors, what="they are forgotten")
    assert len(daemon.get().peers) == PEERS
