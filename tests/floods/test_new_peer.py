"""A new peer gets in at its first message while one address floods, with bounded memory."""

import base64
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.testbed import Testbed, Tunnel
from wgd.noise.cookie import CookieGenerator

pytestmark = [pytest.mark.netns, pytest.mark.alone]

ATTACKER = "192.0.2.66"
PER_SECOND = 20_000
AT_ONCE = 4096
"""At first, so that there is load also where as many a second are no load."""
SECONDS = 5
"""At most: the test ends it before."""
UDP_SEGMENT = 103
BATCH = 64
MIB = 1024


def initiations(public_key: bytes, count: int) -> list[bytes]:
    """Initiations with a right MAC1 of somebody whom nobody knows."""
    macs = CookieGenerator(public_key)
    return [macs.add_macs(struct.pack("<I", 1) + os.urandom(112), 0) for _ in range(count)]


@contextmanager
def flooding(sender: socket.socket, datagrams: list[bytes]) -> Iterator[None]:
    """Send these from a connected socket, again and again, until the end."""
    is_over = threading.Event()
    batches = [b"".join(datagrams[n : n + BATCH]) for n in range(0, len(datagrams), BATCH)]
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(datagrams[0]))

    def send() -> None:
        began, sent = time.monotonic(), 0
        while not is_over.is_set() and (elapsed := time.monotonic() - began) < SECONDS:
            if sent > AT_ONCE + elapsed * PER_SECOND:
                time.sleep(BATCH / PER_SECOND)
                continue
            sender.send(batches[sent // BATCH % len(batches)])
            sent += BATCH

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def kib(pid: int, name: str) -> int:
    """Return a line of proc(5)'s status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(name)


def cookie_replies(sender: socket.socket) -> int:
    """Count what came back; nothing but cookie replies may."""
    sender.setblocking(False)
    count = 0
    while True:
        try:
            reply = sender.recv(2048)
        except BlockingIOError:
            return count
        assert (reply[:4], len(reply)) == (b"\x03\0\0\0", 64)
        count += 1


def test_a_flood_from_one_address(testbed: Testbed, engine: str) -> None:
    tunnel = Tunnel.build(testbed, left_engine=engine, right_engine=engine)
    left, right = tunnel.left, tunnel.right
    left.namespace.add_address("eth0", f"{ATTACKER}/24")
    pid = right.daemon.pid
    before = kib(pid, "VmRSS")
    public_key = base64.b64decode(right.keys.public)
    with left.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((ATTACKER, 0))
        sender.connect((right.outer4, right.port))
        with flooding(sender, initiations(public_key, 100 * BATCH)):
            time.sleep(1)  # the flood is what has to go on
            assert right.last_handshake_ns(left) == 0
            ping = left.ping(right, count=1, wait_seconds=2)
            assert ping.is_lossless, ping.output
        assert cookie_replies(sender) > 0, "there was no load"
    assert kib(pid, "VmHWM") - before < 16 * MIB
    tunnel.assert_works(versions=(4,))
