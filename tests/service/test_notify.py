"""What a service manager is told: by the protocol alone, and by a whole daemon."""

import asyncio
import os
import signal
import socket
import time

import pytest

from tests.service.manager import FakeManager
from tests.testbed import Namespace, Testbed, only_wgd, stays_true
from tests.testbed.namespaces import unique_name
from wgd.service.notify import ServiceManager


def manager_of(fake: FakeManager, **environment: str) -> ServiceManager:
    return ServiceManager.from_environment(
        {"NOTIFY_SOCKET": fake.address, **environment}, os.getpid()
    )


def test_without_a_manager_nothing_happens() -> None:
    nobody = ServiceManager.from_environment({"WATCHDOG_USEC": "1000"}, os.getpid())
    assert not nobody.is_there
    assert nobody.watchdog_seconds is None
    nobody.ready("")
    nobody.store("tun", [0])


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234"])
def test_an_address_of_another_kind_is_no_manager(address: str) -> None:
    assert not ServiceManager.from_environment({"NOTIFY_SOCKET": address}, 1).is_there


def test_readiness_names_the_process(manager: FakeManager) -> None:
    manager_of(manager).ready("at work")
    assert manager.hear(1) == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "at work"}


def test_an_abstract_socket() -> None:
    with FakeManager(f"@{unique_name('wgd-notify')}") as fake:
        manager_of(fake).status("at work")
        assert fake.hear(1) == {"STATUS": "at work"}


def test_a_long_path(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("d" * 100) / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        directory = os.open(path.parent, os.O_PATH)
        sock.bind(f"/proc/self/fd/{directory}/notify")
        os.close(directory)
        ServiceManager(str(path)).status("far")
        assert sock.recv(100) == b"STATUS=far"


def test_what_is_stored_is_the_same_file(manager: FakeManager) -> None:
    read_end, write_end = os.pipe()
    manager_of(manager).store("state", [write_end])
    assert manager.hear(1) == {"FDSTORE": "1", "FDNAME": "state"}
    ((name, kept),) = manager.store
    os.write(kept, b"x")
    assert (name, os.read(read_end, 1)) == ("state", b"x")
    manager_of(manager).forget("state")
    manager.hear(1)
    assert manager.store == []
    os.close(read_end)
    os.close(write_end)


def test_a_manager_that_is_gone_or_stuck_stops_nobody() -> None:
    with FakeManager() as fake:
        manager = manager_of(fake)
        started = time.monotonic()
        for _ in range(2000):  # nobody reads
            manager.status("x" * 1000)
            if time.monotonic() - started > 0.5:
                break
        assert time.monotonic() - started < 3
    manager.status("nobody hears this")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-3"}, None),
        ({"WATCHDOG_USEC": "9" * 30}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_for_whom_the_watchdog_is(
    manager: FakeManager, environment: dict[str, str], seconds: float | None
) -> None:
    assert manager_of(manager, **environment).watchdog_seconds == seconds


def test_the_watchdog_hears_twice_in_its_time_until_closed(manager: FakeManager) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        stop = manager_of(manager, WATCHDOG_USEC="200000").watch(loop)
        while len(times) < 4:
            await asyncio.sleep(0.01)
            if manager.hear(0.001) == {"WATCHDOG": "1"}:
                times.append(loop.time())
        stop()
        manager.hear_all()
        count = len(manager.said)
        await asyncio.sleep(0.3)
        assert len(manager.hear_all()) == count
        assert times[-1] - times[0] >= 3 * 0.1 - 0.02
        assert times[-1] - times[0] < 3 * 0.2, "each within the time"

    asyncio.run(scenario())


# -- a daemon --------------------------------------------------------------------------------------

daemon_test = [pytest.mark.netns, only_wgd("life under a service manager")]


@pytest.fixture
def namespace(testbed: Testbed) -> Namespace:
    return testbed.namespace()


class TestDaemon:
    pytestmark = daemon_test

    def test_it_says_what_it_does_from_start_to_end(
        self, testbed: Testbed, namespace: Namespace, manager: FakeManager
    ) -> None:
        name = testbed.interface_name()
        daemon = manager.start(testbed, namespace, name)
        (ready,) = [message for message in manager.hear_all() if "READY" in message]
        assert ready["MAINPID"] == str(daemon.pid)
        assert name in ready["STATUS"]
        assert daemon.get().peers == {}, "ready means that it answers"
        assert namespace.has_interface(name)
        daemon.signal(signal.SIGTERM)
        assert "SIGTERM" in manager.wait_for("STOPPING")["STATUS"]
        daemon.wait_for_end()

    def test_a_daemon_that_cannot_start_is_never_ready(
        self, testbed: Testbed, namespace: Namespace, manager: FakeManager
    ) -> None:
        name = testbed.interface_name()
        manager.start(testbed, namespace, name)
        manager.said.clear()
        other = testbed.namespace()  # the sockets of all namespaces are in one directory
        manager.forget()
        assert manager.launch(testbed, other, name).program.launched().returncode == 1
        assert not any("READY" in message for message in manager.hear_all())

    def test_in_the_background_it_names_the_process_that_stays(
        self, testbed: Testbed, namespace: Namespace, manager: FakeManager
    ) -> None:
        daemon = testbed.daemon(namespace, environment={"NOTIFY_SOCKET": manager.address})
        assert manager.wait_for("READY")["MAINPID"] == str(daemon.pid)

    def test_the_watchdog_is_fed_by_the_loop_alone(
        self, testbed: Testbed, namespace: Namespace, manager: FakeManager
    ) -> None:
        name = testbed.interface_name()
        daemon = manager.start(testbed, namespace, name, WATCHDOG_USEC="400000")
        for _ in range(3):
            manager.wait_for("WATCHDOG", timeout_seconds=2)
        daemon.signal(signal.SIGSTOP)
        manager.hear_all()
        stays_true(lambda: manager.hear(0.01) is None, 1.0, what="silence")
        daemon.signal(signal.SIGCONT)
        manager.wait_for("WATCHDOG", timeout_seconds=2)

    def test_a_watchdog_for_another_process_is_not_fed(
        self, testbed: Testbed, namespace: Namespace, manager: FakeManager
    ) -> None:
        name = testbed.interface_name()
        manager.start(testbed, namespace, name, WATCHDOG_USEC="100000", WATCHDOG_PID="1")
        stays_true(lambda: manager.hear(0.01) is None, 0.5, what="silence")
