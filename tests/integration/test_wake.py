"""The wake watcher is called when the wall clock is set, which a resume from suspend counts as."""

import asyncio
import ctypes
import errno
import logging
import os
import time
from collections.abc import Callable

import pytest

from wgd.net.wake import WakeWatcher

TIMEOUT_SECONDS = 5


def set_clock_to_what_it_is() -> None:
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_REALTIME))
    except PermissionError:
        if os.environ.get("CI") == "true":
            pytest.fail("in CI this must run, but it needs CAP_SYS_TIME", pytrace=False)
        pytest.skip("needs root (CAP_SYS_TIME)")


async def called_after(act: Callable[[], None], called: asyncio.Event) -> None:
    act()
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await called.wait()
    called.clear()


def test_setting_the_clock_is_seen_each_time() -> None:
    async def main() -> None:
        called = asyncio.Event()
        watcher = WakeWatcher(asyncio.get_running_loop(), called.set)
        for _ in range(3):
            await called_after(set_clock_to_what_it_is, called)
        watcher.close()

    asyncio.run(main())


def test_nothing_is_called_while_nothing_happens_or_after_the_end() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls: list[str] = []
        called = asyncio.Event()
        closed = WakeWatcher(loop, lambda: calls.append("closed"))
        closed.close()
        closed.close()
        watcher = WakeWatcher(loop, called.set)
        await asyncio.sleep(0)
        assert not called.is_set()
        await called_after(set_clock_to_what_it_is, called)
        watcher.close()
        assert calls == []

    asyncio.run(main())


def test_it_may_be_closed_by_its_own_call() -> None:
    async def main() -> None:
        called = asyncio.Event()

        def on_wake() -> None:
            watcher.close()
            called.set()

        watcher = WakeWatcher(asyncio.get_running_loop(), on_wake)
        await called_after(set_clock_to_what_it_is, called)

    asyncio.run(main())


class OldLibc:
    """A kernel that makes such timers, but cannot cancel them; or makes none."""

    def __init__(self, *, makes_timers: bool) -> None:
        self._makes_timers = makes_timers
        self.made: list[int] = []

    def timerfd_create(self, *_arguments: object) -> int:
        if not self._makes_timers:
            ctypes.set_errno(errno.ENOSYS)
            return -1
        self.made.append(os.open(os.devnull, os.O_RDONLY))
        return self.made[0]

    def timerfd_settime(self, *_arguments: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


@pytest.mark.parametrize("makes_timers", [False, True])
def test_where_the_kernel_cannot_there_is_one_log_line_and_no_watcher(
    makes_timers: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    libc = OldLibc(makes_timers=makes_timers)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_arguments, **_options: libc)

    async def main() -> None:
        watcher = WakeWatcher(asyncio.get_running_loop(), lambda: pytest.fail("called"))
        watcher.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for fd in libc.made:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(fd)
