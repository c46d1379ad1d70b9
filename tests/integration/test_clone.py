"""The kernel's notice of a copied machine, told apart from all other uevents, real and forged.

A test cannot have this machine copied, so the notice itself comes from a fake socket; the other
uevents are real.
"""

import asyncio
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.testbed.namespaces import Namespace
from wgd.net import clone
from wgd.net.clone import CloneWatcher, is_clone_notice

NETLINK_KOBJECT_UEVENT = 15

# As drivers/virt/vmgenid.c and lib/kobject_uevent.c make it.
NOTICE = b"\0".join(
    [
        b"change@/devices/LNXSYSTM:00/LNXSYBUS:00/VMGENCTR:00",
        b"ACTION=change",
        b"DEVPATH=/devices/LNXSYSTM:00/LNXSYBUS:00/VMGENCTR:00",
        b"SUBSYSTEM=platform",
        b"NEW_VMGENID=1",
        b"DRIVER=vmgenid",
        b"SEQNUM=4711",
        b"",
    ]
)
OTHER = NOTICE.replace(b"NEW_VMGENID=1", b"SYNTH_ARG_NEW_VMGENID=1")


def test_a_notice_is_told_from_other_uevents() -> None:
    assert is_clone_notice(NOTICE)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"NEW_VMGENID=1",
        OTHER,
        NOTICE.replace(b"NEW_VMGENID=1", b"NEW_VMGENID=10"),
        NOTICE.replace(b"NEW_VMGENID=1", b"NEW_VMGENID=0"),
        NOTICE.replace(b"change@", b"add@"),
        b"libudev\0" + NOTICE,
        os.urandom(8192),
    ],
)
def test_what_is_no_notice(message: bytes) -> None:
    assert not is_clone_notice(message)


class FakeSocket(socket.socket):
    """A socket that receives what a test says: messages with their senders' ports, or errors."""

    def __init__(self, *received: tuple[bytes, int] | int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.waiting = deque(received)

    def recvmsg(self, *_arguments: int) -> tuple[bytes, list[object], int, tuple[int, int]]:  # type: ignore[override]
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        message = self.waiting.popleft()
        if isinstance(message, int):
            raise OSError(message, os.strerror(message))
        return message[0], [], 0, (message[1], 1)


def calls_after(*received: tuple[bytes, int] | int) -> int:
    """How often the watcher calls when this is read at once."""

    async def main() -> int:
        calls: list[None] = []
        watcher = CloneWatcher(
            asyncio.get_running_loop(), lambda: calls.append(None), lambda: FakeSocket(*received)
        )
        watcher._readable()
        watcher.close()
        watcher.close()
        return len(calls)

    return asyncio.run(main())


def test_a_notice_is_one_call() -> None:
    assert calls_after((OTHER, 0), (NOTICE, 0), (OTHER, 0)) == 1
    assert calls_after((NOTICE, 0), (NOTICE, 0)) == 1


def test_others_are_no_call() -> None:
    assert calls_after() == 0
    assert calls_after(*[(OTHER, 0)] * 1000) == 0


def test_what_does_not_come_from_the_kernel_is_no_call() -> None:
    assert calls_after((NOTICE, 4711)) == 0


def test_lost_uevents_may_have_been_notices() -> None:
    assert calls_after((OTHER, 0), errno.ENOBUFS, (OTHER, 0)) == 1


def test_where_it_cannot_be_had_there_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> socket.socket:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    async def main() -> None:
        CloneWatcher(asyncio.get_running_loop(), lambda: None, refuse).close()

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert "event=clones_not_watched" in record.getMessage()


# -- real uevents ----------------------------------------------------------------------------------


def seen_after(cause: Callable[[], object]) -> tuple[int, list[bytes]]:
    """How often a watcher on a real socket calls after `cause`, and what it has read."""

    read_something = asyncio.Event()

    class Listener(socket.socket):
        read: list[bytes] = []  # noqa: RUF012 - one for each `seen_after`

        def recvmsg(self, *arguments: int):  # type: ignore[no-untyped-def]
            received = super().recvmsg(*arguments)
            self.read.append(received[0])
            read_something.set()
            return received

    async def main() -> tuple[int, list[bytes]]:
        loop = asyncio.get_running_loop()
        calls: list[None] = []
        real = clone._open_socket()
        listener = Listener(fileno=real.detach())
        watcher = CloneWatcher(loop, lambda: calls.append(None), lambda: listener)
        try:
            cause()
            async with asyncio.timeout(5):
                await read_something.wait()
        finally:
            watcher.close()
        return len(calls), Listener.read

    return asyncio.run(main())


@pytest.mark.netns
def test_another_devices_uevent_is_read_and_is_no_call() -> None:
    def cause() -> None:
        arguments = "change 3f2504e0-4f89-41d3-9a0c-0305e82c3301 NEW=1"
        Path("/sys/devices/virtual/mem/null/uevent").write_text(arguments)

    calls, read = seen_after(cause)
    assert calls == 0
    assert any(b"DEVNAME=null" in message for message in read)


@pytest.mark.netns
def test_a_notice_that_root_has_forged_is_no_call(netns: Namespace) -> None:
    def cause() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT) as forger:
            forger.sendto(NOTICE, (0, 1))

    with netns.entered():
        calls, read = seen_after(cause)
    assert calls == 0
    assert NOTICE in read
