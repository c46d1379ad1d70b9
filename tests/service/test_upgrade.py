"""SIGUSR2: the program on disk takes the place of the running one, and the tunnel stays."""

import itertools
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service import reachable
from tests.service.manager import FakeManager
from tests.testbed import (
    Daemon,
    Namespace,
    Testbed,
    Tunnel,
    daemon_command,
    only_wgd,
    require,
    wait_until,
)
from tests.testbed.engines import ENGINES, require_engine
from tests.testbed.uapi import UapiConnection

pytestmark = [pytest.mark.netns, only_wgd("an upgrade in place")]


@pytest.fixture
def namespace(testbed: Testbed) -> Namespace:
    return testbed.namespace()


def upgrade(daemon: Daemon) -> None:
    """Send the signal and wait until the new program is ready."""
    daemon.program.wait_for_output("event=ready")
    pid, before = daemon.pid, daemon.program.stdout.count("event=ready")
    daemon.signal(signal.SIGUSR2)
    wait_until(
        lambda: (
            daemon.program.stdout.count("event=ready restored=yes") > before - 1
            and daemon.program.stdout.count("event=ready") == before + 1
        ),
        15,
        what="the new program",
    )
    assert daemon.pid == pid


class Pings:
    """A run of ping(8) in the background; afterwards, when it was answered."""

    def __init__(self, output: Path) -> None:
        self._output = output

    @property
    def answered(self) -> list[float]:
        """The time of each answer, in seconds."""
        return [
            float(one) for one in re.findall(r"^\[([\d.]+)\] \d+ bytes", self.text, re.MULTILINE)
        ]

    @property
    def text(self) -> str:
        return self._output.read_text()

    def wait_for_more(self, count: int) -> None:
        before = len(self.answered)
        wait_until(lambda: len(self.answered) >= before + count, 30, what="more answers")

    @property
    def longest_silence_seconds(self) -> float:
        times = self.answered
        return max(later - earlier for earlier, later in itertools.pairwise(times))


@contextmanager
def pinging(namespace: Namespace, address: str, directory: Path) -> Iterator[Pings]:
    output = directory / "pings"
    with output.open("wb") as file:
        process = subprocess.Popen(
            namespace.command("ping", "-n", "-D", "-i", "0.1", address), stdout=file
        )
        try:
            yield Pings(output)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


@pytest.mark.parametrize("user", ["", "nobody"], ids=["root", "nobody"])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_upgrade_keeps_process_and_tunnel(
    engine: str, user: str, measured: Callable[[str], None]
) -> None:
    require()
    require_engine(engine)
    with Testbed(environment={"WGD_DATAPLANE": engine, "WGD_USER": user}) as bed:
        tunnel = Tunnel.build(bed, left_command=reachable.command() if user else None)
        left, right = tunnel.left, tunnel.right
        name = left.daemon.interface
        tunnel.assert_works()
        links = left.home.ip("link", "show", "dev", name).stdout
        routes = left.home.ip("-4", "route", "show").stdout
        inode = left.daemon.socket_path.stat().st_ino
        # Whoever sends here knows nothing of it. By itself he would do a new handshake after 15
        # seconds without an answer; so the new program has to do it.
        with pinging(right.home, left.inner4, bed.directory) as pings:
            pings.wait_for_more(3)
            for _ in range(2):
                upgrade(left.daemon)
                pings.wait_for_more(3)
        measured(f"longest silence of an upgrade: {pings.longest_silence_seconds:.2f} s ({engine})")
        assert pings.longest_silence_seconds < 10
        tunnel.assert_works()
        assert left.home.ip("link", "show", "dev", name).stdout == links
        assert left.home.ip("-4", "route", "show").stdout == routes
        assert left.daemon.socket_path.stat().st_ino == inode
        left.daemon.signal(signal.SIGTERM)
        left.daemon.wait_for_end()
        assert not left.daemon.socket_path.exists()
        assert not left.home.has_interface(name)


def test_the_roamed_endpoint_and_the_port_are_kept(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works()
    # The right end was told no endpoint: it has learned it.
    endpoint = right.endpoint_of(left)
    assert endpoint == left.outer(4)
    values = right.daemon.get().values
    upgrade(right.daemon)
    assert right.endpoint_of(left) == endpoint
    assert right.daemon.get().values == values
    assert right.ping(left).is_lossless


def test_clients_wait_and_are_served_by_the_new_program(
    testbed: Testbed, namespace: Namespace
) -> None:
    daemon = testbed.daemon(namespace)
    daemon.wg("set", "fwmark", "11")
    upgrade(daemon)
    # Nobody accepts while it is stopped: as when it becomes the new program.
    daemon.signal(signal.SIGSTOP)
    with UapiConnection(daemon.socket_path) as client:
        client.send("get=1\n\n")
        daemon.signal(signal.SIGUSR2)
        daemon.signal(signal.SIGCONT)
        assert "fwmark=11" in client.reply()
    wait_until(lambda: daemon.program.stdout.count("restored=yes") == 2, 15, what="the upgrade")


def test_signals_at_any_moment_never_end_it(testbed: Testbed, namespace: Namespace) -> None:
    daemon = testbed.daemon(namespace)
    pid = daemon.pid

    def has_upgraded_twice() -> bool:
        os.kill(pid, signal.SIGUSR2)
        os.kill(pid, signal.SIGUSR1)
        return daemon.program.stdout.count("restored=yes") >= 2

    wait_until(has_upgraded_twice, 30, what="two upgrades")
    wait_until(lambda: daemon.get().peers == {}, what="it answers")
    assert pid in daemon.program.pids()


@pytest.mark.parametrize("milliseconds", [0, 20, 60, 120, 200, 300, 400])
def test_the_end_in_the_middle_of_an_upgrade(
    testbed: Testbed, namespace: Namespace, milliseconds: int
) -> None:
    daemon = testbed.daemon(namespace)
    daemon.signal(signal.SIGUSR2)
    # The moments that matter are all between the old program's end and the new one's handlers.
    wait_until(
        lambda: daemon.program.stdout.count("event=ending reason='upgrade'"),
        15,
        what="the old program's end",
    )
    time.sleep(milliseconds / 1000)
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_end()
    assert not namespace.has_interface(daemon.interface)
    assert not daemon.socket_path.exists()


@pytest.mark.parametrize("is_root", [True, False])
def test_who_watches_goes_on_or_is_given_up_for_the_tunnel(
    testbed: Testbed, namespace: Namespace, is_root: bool
) -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("h11")
    path = testbed.directory / "status.sock"
    environment = {"LOG_LEVEL": "verbose", "WGD_METRICS": f"unix:{path}"}
    if not is_root:
        environment["WGD_USER"] = "nobody"
    testbed.directory.chmod(0o755)
    command = None if is_root else reachable.command()
    daemon = testbed.daemon(namespace, command=command, environment=environment)
    assert path.is_socket()
    upgrade(daemon)
    # In root's directory only root can make the socket anew.
    if not is_root:
        daemon.program.wait_for_output("event=metrics_failed")
    assert ("event=metrics_failed" in daemon.program.stdout) == (not is_root)
    with socket.socket(socket.AF_UNIX) as client:
        if is_root:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert daemon.get().peers == {}


# -- when it goes wrong ----------------------------------------------------------------------------

PROGRAM = "from wgd.cli import main\nmain()\n"


@pytest.fixture
def program(testbed: Testbed) -> Path:
    """A `wgd` of our own: a script to be replaced, and an interpreter that can vanish."""
    testbed.directory.chmod(0o755)
    place = testbed.directory / "program"
    place.mkdir()
    place.chmod(0o777)
    (place / "python").symlink_to(sys.executable)
    script = place / "wgd"
    script.write_text(PROGRAM)
    return script


def test_an_upgrade_as_a_user_whatever_the_umask(testbed: Testbed, namespace: Namespace) -> None:
    """Its directories, made as root, are where the user must get to."""
    directory = testbed.directory / "made"
    testbed.directory.chmod(0o755)
    script = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    daemon = testbed.daemon(
        namespace,
        command=reachable.command(*script, *daemon_command(), "--uapi-dir", directory),
        environment={"WGD_USER": "nobody", "LOG_LEVEL": "verbose"},
    )
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    upgrade(daemon)


def start(testbed: Testbed, namespace: Namespace, program: Path, user: str = "") -> Daemon:
    # An interpreter outside of its virtual environment has to be told where that is.
    environment = {"PYTHONPATH": ":".join(sys.path), "LOG_LEVEL": "verbose", "WGD_USER": user}
    command = reachable.command(program.with_name("python"), program)
    return testbed.daemon(namespace, command=command, environment=environment)


@pytest.mark.parametrize(
    "broken", ["import no_such_module\n", "raise SystemExit(3)\n", "no python at all\n"]
)
def test_a_new_program_that_does_not_start_is_refused(
    testbed: Testbed, namespace: Namespace, program: Path, broken: str
) -> None:
    daemon = start(testbed, namespace, program)
    pid = daemon.pid
    daemon.wg("set", "fwmark", "11")
    program.write_text(broken)
    daemon.signal(signal.SIGUSR2)
    wait_until(lambda: "event=upgrade_refused" in daemon.program.stdout, 15, what="the refusal")
    assert daemon.pid == pid
    assert daemon.get().values["fwmark"] == "11"
    program.write_text(PROGRAM)
    upgrade(daemon)
    assert daemon.get().values["fwmark"] == "11"


@pytest.mark.parametrize("user", ["", "nobody"], ids=["root", "nobody"])
def test_a_program_that_vanishes_at_the_last_moment_loses_nothing(
    testbed: Testbed, namespace: Namespace, program: Path, user: str
) -> None:
    daemon = start(testbed, namespace, program, user)
    daemon.wg("set", "fwmark", "11")
    daemon.up()
    namespace.add_address(daemon.interface, "10.77.0.1/24")
    pid = daemon.pid
    interpreter = program.with_name("python")
    program.write_text(f"import os\nos.unlink({str(interpreter)!r})\n")  # good, but for this
    daemon.signal(signal.SIGUSR2)
    wait_until(lambda: "event=upgrade_failed" in daemon.program.stdout, 15, what="the failure")
    wait_until(lambda: "restored=yes" in daemon.program.stdout, 15, what="it goes on")
    assert daemon.pid == pid
    assert daemon.get().values["fwmark"] == "11"
    assert namespace.ping("10.77.0.1", count=1).is_lossless
    interpreter.symlink_to(sys.executable)
    program.write_text(PROGRAM)
    upgrade(daemon)
    assert daemon.get().values["fwmark"] == "11"
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_end()
    assert not namespace.has_interface(daemon.interface)
    assert not daemon.socket_path.exists()


def test_under_a_service_manager(
    testbed: Testbed, namespace: Namespace, manager: FakeManager
) -> None:
    name = testbed.interface_name()
    daemon = manager.start(testbed, namespace, name)
    kept = manager.names()
    daemon.signal(signal.SIGUSR2)
    manager.wait_for("RELOADING")
    ready = manager.wait_for("READY")
    assert ready["MAINPID"] == str(daemon.pid)
    daemon.wg("set", "fwmark", "11")
    assert manager.names() == kept, "nothing is kept twice"
    daemon.signal(signal.SIGKILL)
    daemon.wait_for_end()
    assert manager.start(testbed, namespace, name).get().values["fwmark"] == "11"
