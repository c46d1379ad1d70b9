"""The link watcher reports up, down, MTU and deletion wherever the interface goes, once each."""

import asyncio
import errno
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
import uvloop

from tests.integration.conftest import MakeNamespace
from tests.testbed.limits import no_new_descriptors
from tests.testbed.namespaces import Namespace, unique_name
from wgd.net.link import LinkWatcher
from wgd.net.namespaces import run_in_namespace
from wgd.tun.linux import LinuxTun

pytestmark = pytest.mark.netns

TIMEOUT_SECONDS = 5
Event = tuple[str, object]


class Watched:
    """A TUN device with a watcher; `next` gives what it called back, in order."""

    def __init__(self, netns: Namespace) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.home = netns
        self.tun = LinuxTun.create(unique_name("t"))
        self.name = self.tun.name
        self.watcher: LinkWatcher | None = None

    def watch(self) -> None:
        self.watcher = LinkWatcher(
            asyncio.get_running_loop(),
            self.tun,
            on_link=lambda up: self.events.put_nowait(("up", up)),
            on_mtu=lambda mtu: self.events.put_nowait(("mtu", mtu)),
            on_gone=lambda _reason: self.events.put_nowait(("gone", True)),
        )

    async def next(self, count: int = 1) -> list[Event]:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return [await self.events.get() for _ in range(count)]

    async def ip(self, netns: Namespace, *words: str) -> None:
        await asyncio.to_thread(netns.ip, "link", "set", *words)

    async def responds_in(self, netns: Namespace, mtu: int) -> None:
        """Prove that up, down and MTU are seen when changed in `netns`, and nothing else is."""
        await self.ip(netns, self.name, "mtu", str(mtu))
        assert await self.next() == [("mtu", mtu)]
        await self.ip(netns, self.name, "up")
        assert await self.next() == [("up", True)]
        await self.ip(netns, self.name, "down")
        assert await self.next() == [("up", False)]
        assert self.events.empty()

    def close(self) -> None:
        if self.watcher is not None:
            self.watcher.close()
            self.watcher.close()
        self.tun.close()


def in_namespace(
    netns: Namespace,
    scenario: Callable[[Watched], Coroutine[None, None, None]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> None:
    """Run a scenario as a daemon that lives in `netns` would, on the daemon's kind of loop."""

    async def main() -> None:
        watched = Watched(netns)
        try:
            await scenario(watched)
        finally:
            watched.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    with netns.entered():
        run()


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_the_state_is_reported_first_and_then_changes_only(
    netns: Namespace, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def scenario(watched: Watched) -> None:
        watched.watch()
        assert await watched.next(2) == [("mtu", 1420), ("up", False)]
        await watched.responds_in(netns, 1300)
        await watched.ip(netns, watched.name, "up", "mtu", "1301", "txqueuelen", "77")
        assert sorted(await watched.next(2)) == [("mtu", 1301), ("up", True)]
        await watched.ip(netns, watched.name, "txqueuelen", "78")
        await watched.ip(netns, watched.name, "mtu", "65535")
        assert await watched.next() == [("mtu", 65535)]

    in_namespace(netns, scenario, loop_factory=loop_factory)


def test_an_interface_that_is_up_already_is_reported_up(netns: Namespace) -> None:
    async def scenario(watched: Watched) -> None:
        await watched.ip(netns, watched.name, "up")
        watched.watch()
        assert await watched.next(2) == [("mtu", 1420), ("up", True)]

    in_namespace(netns, scenario)


def test_what_happens_between_construction_and_the_loops_turn_is_not_missed(
    netns: Namespace,
) -> None:
    async def scenario(watched: Watched) -> None:
        watched.watch()
        netns.ip("link", "set", watched.name, "up")  # blocks the loop: nothing was read before
        assert await watched.next(2) == [("mtu", 1420), ("up", True)]

    in_namespace(netns, scenario)


def test_a_quick_down_and_up_is_two_events(netns: Namespace) -> None:
    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.ip(netns, watched.name, "up")
        assert (await watched.next(2))[0] == ("mtu", 1420)
        while not watched.events.empty():
            watched.events.get_nowait()
        netns.ip("link", "set", watched.name, "down")
        netns.ip("link", "set", watched.name, "up")
        assert await watched.next(2) == [("up", False), ("up", True)]

    in_namespace(netns, scenario)


def test_other_interfaces_are_no_matter(netns: Namespace) -> None:
    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.next(2)
        await watched.ip(netns, "lo", "down")
        await watched.ip(netns, "lo", "mtu", "1000")
        await watched.responds_in(netns, 1300)

    in_namespace(netns, scenario)


def test_a_renamed_interface_is_still_seen(netns: Namespace) -> None:
    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.next(2)
        renamed = unique_name("r")
        await watched.ip(netns, watched.name, "name", renamed)
        watched.name = renamed
        await watched.responds_in(netns, 1300)

    in_namespace(netns, scenario)


def test_it_is_followed_from_namespace_to_namespace_and_back(
    netns: Namespace, make_netns: MakeNamespace
) -> None:
    other, third = make_netns(), make_netns()
    # An index that is taken where it goes: the kernel gives it another one there.
    for _ in range(5):
        third.ip("link", "add", unique_name("d"), "type", "veth", "peer")

    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.next(2)
        here = netns
        for step, there in enumerate((other, third, netns, third, other, netns)):
            await watched.ip(here, watched.name, "netns", there.name)
            await watched.responds_in(there, 1300 + step)
            here = there

    in_namespace(netns, scenario)


def test_a_rename_together_with_a_move_is_no_matter(
    netns: Namespace, make_netns: MakeNamespace
) -> None:
    other = make_netns()

    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.next(2)
        renamed = unique_name("r")
        await watched.ip(netns, watched.name, "netns", other.name, "name", renamed)
        watched.name = renamed
        await watched.responds_in(other, 1300)

    in_namespace(netns, scenario)


def test_one_that_is_elsewhere_from_the_start_is_found(
    netns: Namespace, make_netns: MakeNamespace
) -> None:
    other = make_netns()

    async def scenario(watched: Watched) -> None:
        await watched.ip(netns, watched.name, "netns", other.name)
        await watched.ip(other, watched.name, "up")
        watched.watch()
        assert await watched.next(2) == [("mtu", 1420), ("up", True)]
        await watched.ip(other, watched.name, "down")
        assert await watched.next() == [("up", False)]
        await watched.responds_in(other, 1300)

    in_namespace(netns, scenario)


def test_moving_does_not_keep_the_other_namespace_alive(
    netns: Namespace, make_netns: MakeNamespace
) -> None:
    other = make_netns()

    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.next(2)
        await watched.ip(netns, watched.name, "netns", other.name)
        await watched.responds_in(other, 1300)
        await asyncio.to_thread(other.delete)
        # Nothing of ours holds it: the kernel deletes the TUN with it, and its descriptor tells.
        with pytest.raises(OSError) as caught:
            while True:  # first come the packets that the kernel had sent while it was up
                assert select.select([watched.tun], [], [], TIMEOUT_SECONDS)[0], "still there"
                watched.tun.read_into(memoryview(bytearray(2000)))
        assert caught.value.errno == errno.EBADFD
        assert watched.tun.is_gone()

    in_namespace(netns, scenario)


@pytest.mark.parametrize("moved", [False, True])
def test_a_deleted_interface_is_reported_once(
    netns: Namespace, make_netns: MakeNamespace, moved: bool
) -> None:
    other = make_netns()

    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.next(2)
        here = netns
        if moved:
            await watched.ip(netns, watched.name, "netns", other.name)
            await watched.responds_in(other, 1300)
            here = other
        await asyncio.to_thread(here.ip, "link", "delete", watched.name)
        assert await watched.next() == [("gone", True)]
        assert watched.events.empty()

    in_namespace(netns, scenario)


def test_lost_events_are_made_good(netns: Namespace) -> None:
    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.next(2)
        script = "\n".join(f"link set lo mtu {1000 + step}" for step in range(1500))
        netns.run("ip", "-batch", "-", stdin=script)  # the loop waits: the socket overflows
        netns.ip("link", "set", watched.name, "up")
        assert await watched.next() == [("up", True)]
        await watched.ip(netns, watched.name, "mtu", "1300")
        assert await watched.next() == [("mtu", 1300)]

    in_namespace(netns, scenario)


@pytest.mark.parametrize("events_are_lost", [False, True])
def test_without_descriptors_it_waits_until_there_are_some(
    netns: Namespace,
    make_netns: MakeNamespace,
    caplog: pytest.LogCaptureFixture,
    events_are_lost: bool,
) -> None:
    other = make_netns()

    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.next(2)
        netns.ip("link", "set", watched.name, "netns", other.name)  # the loop waits
        if events_are_lost:
            script = "\n".join(f"link set lo mtu {1000 + step}" for step in range(1500))
            netns.run("ip", "-batch", "-", stdin=script)
        with no_new_descriptors():
            await asyncio.sleep(1.2)
            assert len(caplog.records) == 1
            assert watched.events.empty()
        # Somebody else's command needs descriptors of ours, too.
        await watched.ip(other, watched.name, "mtu", "1300")
        assert await watched.next() == [("mtu", 1300)]
        await watched.responds_in(other, 1301)

    in_namespace(netns, scenario)
    assert [record.getMessage() for record in caplog.records] == [
        "event=link_events_delayed error='Too many open files'"
    ]


def test_opening_the_watcher_does_not_import_pyroute2(netns: Namespace) -> None:
    program = (
        "import asyncio, sys\n"
        "from wgd.net.link import LinkWatcher\n"
        "from wgd.net.routes import RouteWatcher\n"
        "from wgd.tun.linux import LinuxTun\n"
        "loop = asyncio.new_event_loop()\n"
        "tun = LinuxTun.create(sys.argv[1])\n"
        "quiet = lambda _value: None\n"
        "LinkWatcher(loop, tun, on_link=quiet, on_mtu=quiet, on_gone=quiet)\n"
        "RouteWatcher(loop, quiet)\n"
        "print('pyroute2' in sys.modules)\n"
    )
    assert netns.run(sys.executable, "-c", program, unique_name("t")).stdout == "False\n"


def test_an_idle_watcher_does_not_wake_up(netns: Namespace) -> None:
    async def scenario(watched: Watched) -> None:
        watched.watch()
        await watched.next(2)
        before = os.times()
        switches = _voluntary_switches()
        await asyncio.sleep(0.5)  # the one thing to observe here is time passing
        assert _voluntary_switches() - switches <= 2, "it woke up"
        assert os.times().user - before.user < 0.1

    in_namespace(netns, scenario)


def _voluntary_switches() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


# -- the helper thread -----------------------------------------------------------------------------


def test_a_function_runs_in_the_other_namespace_and_the_caller_stays(netns: Namespace) -> None:
    def where() -> tuple[int, int]:
        return Path("/proc/thread-self/ns/net").stat().st_ino, threading.get_ident()

    before = where()
    with netns.path.open("rb") as namespace:
        inside = run_in_namespace(namespace.fileno(), where)
        with pytest.raises(ZeroDivisionError):
            run_in_namespace(namespace.fileno(), lambda: 1 // 0)
    assert inside[0] == netns.path.stat().st_ino
    assert inside[1] != before[1]
    assert where() == before
    with Path("/proc/thread-self/ns/net").open("rb") as own:
        assert run_in_namespace(own.fileno(), where) == before


def test_no_thread_is_left_behind(netns: Namespace) -> None:
    before = threading.active_count()
    with netns.path.open("rb") as namespace:
        run_in_namespace(namespace.fileno(), lambda: subprocess.run(["true"], check=True))
    assert threading.active_count() == before
