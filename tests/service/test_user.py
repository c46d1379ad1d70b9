"""`wgd --user nobody`: what the whole daemon is, and can still do, after it has given root up."""

import os
import pwd
import signal
import socket
from pathlib import Path

import pytest

from tests.testbed import Daemon, Namespace, Testbed, wait_until
from tests.testbed.namespaces import run
from wgd.service.janitor import NAME as JANITOR

pytestmark = pytest.mark.netns

USER = "nobody"
ENTRY = pwd.getpwnam(USER)
# linux/capability.h: NET_BIND_SERVICE, NET_BROADCAST, NET_ADMIN
KEPT = 1 << 10 | 1 << 11 | 1 << 12
RESERVED_PORT = 853


@pytest.fixture
def namespace(testbed: Testbed) -> Namespace:
    return testbed.namespace()


@pytest.fixture
def daemon(testbed: Testbed, namespace: Namespace) -> Daemon:
    environment = {"LOG_LEVEL": "verbose", "WGD_USER": USER}
    return testbed.daemon(namespace, environment=environment)


def status_of(thread: Path) -> dict[str, list[str]]:
    lines = (thread / "status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def janitor_of(daemon: Daemon) -> int:
    (pid,) = (
        pid
        for pid in daemon.program.pids()
        if Path(f"/proc/{pid}/comm").read_text() == f"{JANITOR}\n"
    )
    return pid


def has_ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_every_thread_is_the_user_with_three_capabilities_at_most(daemon: Daemon) -> None:
    daemon.up()
    threads = [status_of(thread) for thread in Path(f"/proc/{daemon.pid}/task").iterdir()]
    for status in threads:
        assert set(status["Uid"]) == {str(ENTRY.pw_uid)}
        assert set(status["Gid"]) == {str(ENTRY.pw_gid)}
        assert status["NoNewPrivs"] == ["1"]
        for each in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(status[each][0], 16) & ~KEPT == 0
    main = status_of(Path(f"/proc/{daemon.pid}"))
    assert int(main["CapPrm"][0], 16) == int(main["CapBnd"][0], 16) == KEPT


def test_others_of_that_user_cannot_look_into_it(daemon: Daemon) -> None:
    unprivileged = ("setpriv", f"--reuid={USER}", f"--regid={ENTRY.pw_gid}", "--clear-groups")
    for file in ("environ", "mem", "maps"):
        read = run(*unprivileged, "cat", f"/proc/{daemon.pid}/{file}", check=False)
        assert "Permission denied" in read.stderr
    with pytest.raises(AssertionError, match="Permission denied"):
        run(*unprivileged, "wg", "show", daemon.interface)


def test_configuration_mark_port_and_link_can_still_change(daemon: Daemon) -> None:
    daemon.wg("set", "listen-port", "0", "fwmark", "0x33")
    daemon.up()
    daemon.wg("set", "listen-port", str(RESERVED_PORT))
    assert RESERVED_PORT in daemon.namespace.udp_ports()
    daemon.wg("set", "fwmark", "0xca6c")
    assert daemon.get().values["fwmark"] == str(0xCA6C)
    daemon.ip("down")
    wait_until(lambda: not daemon.namespace.udp_ports(), what="the port is closed")
    daemon.up()


def test_a_tun_moved_to_another_namespace_is_followed(testbed: Testbed, daemon: Daemon) -> None:
    elsewhere = testbed.namespace()
    daemon.wg("set", "listen-port", str(RESERVED_PORT))
    daemon.ip("netns", elsewhere.name)
    elsewhere.ip("link", "set", "dev", daemon.interface, "up")
    # The sockets stay where the daemon is.
    daemon.wait_until_listening()
    elsewhere.ip("link", "set", "dev", daemon.interface, "down")
    wait_until(lambda: not daemon.namespace.udp_ports(), what="the port is closed")
    elsewhere.ip("link", "del", daemon.interface)
    daemon.wait_for_end()
    assert not daemon.socket_path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["orderly", "kill -9"])
def test_no_socket_stays_behind(testbed: Testbed, daemon: Daemon, number: signal.Signals) -> None:
    janitor = janitor_of(daemon)
    daemon.signal(number)
    wait_until(lambda: not daemon.socket_path.exists(), what="the socket's removal")
    wait_until(lambda: has_ended(janitor), what="the janitor's end")
    daemon.wait_for_end()
    again = testbed.daemon(daemon.namespace, interface=daemon.interface)
    assert again.get().peers == {}


def test_the_socket_of_a_successor_stays(testbed: Testbed, daemon: Daemon) -> None:
    janitor = janitor_of(daemon)
    # Somebody else's socket takes the name.
    other = daemon.socket_path.with_suffix(".other")
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(other))
        other.rename(daemon.socket_path)
        daemon.wait_for_end()
        wait_until(lambda: has_ended(janitor), what="the janitor's end")
        assert daemon.socket_path.is_socket()


def test_the_end_of_the_socket_file_is_the_daemons(daemon: Daemon) -> None:
    daemon.socket_path.unlink()
    daemon.wait_for_end()


def test_a_lost_janitor_is_no_loss_to_the_daemon(daemon: Daemon) -> None:
    os.kill(janitor_of(daemon), signal.SIGKILL)
    assert daemon.get().peers == {}
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_end()
    # It cannot remove the file, and ends all the same.
    assert "Traceback" not in daemon.program.output
    daemon.socket_path.unlink()


@pytest.mark.parametrize("user", ["root", "no-such-user"])
def test_a_user_that_cannot_be_is_refused(
    testbed: Testbed, namespace: Namespace, user: str
) -> None:
    name = testbed.interface_name()
    launch = testbed.run_program(namespace, "--user", user, name).launched()
    assert launch.returncode == 1
    assert launch.stderr.count("\n") == 1
    assert user in launch.stderr
    assert not namespace.has_interface(name)
