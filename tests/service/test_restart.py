"""A daemon that is killed, and the next one that goes on with what was kept for it."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.manager import FakeManager
from tests.testbed import Daemon, Namespace, Testbed, Tunnel, only_wgd, wait_until
from tests.testbed.engines import ENGINES
from tests.testbed.tunnels import as_hex
from tests.testbed.uapi import SOCKET_DIRECTORY, UapiConnection

pytestmark = [pytest.mark.netns, only_wgd("life under a service manager")]


@pytest.fixture
def namespace(testbed: Testbed) -> Namespace:
    return testbed.namespace()


def network(namespace: Namespace, interface: str) -> list[str]:
    """What the kernel shows of an interface: index, MTU, addresses, routes."""
    return [
        namespace.ip("-d", "link", "show", "dev", interface).stdout,
        namespace.ip("address", "show", "dev", interface).stdout,
        namespace.ip("-4", "route", "show", "dev", interface).stdout,
        namespace.ip("-6", "route", "show", "dev", interface).stdout,
    ]


def kill(daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.wait_for_end()


class Scene:
    """A tunnel whose left end runs under a manager."""

    def __init__(self, testbed: Testbed, manager: FakeManager, **environment: str) -> None:
        self._testbed, self._manager, self._environment = testbed, manager, environment
        self.tunnel = Tunnel.build(testbed)
        left = self.tunnel.left
        # The left end once more, this time under the manager.
        left.daemon.signal(signal.SIGTERM)
        left.daemon.wait_for_end()
        self.start()
        left.daemon.setconf(
            self.tunnel.configuration(left, self.tunnel.right, self.tunnel.right.outer(4))
        )
        Tunnel.give_addresses(left)
        left.daemon.up()
        left.home.ip("link", "set", "dev", left.daemon.interface, "mtu", "1300")
        left.home.ip("route", "add", "198.51.100.0/24", "dev", left.daemon.interface)

    def start(self) -> None:
        left = self.tunnel.left
        left.daemon = self._manager.start(
            self._testbed, left.home, left.daemon.interface, **self._environment
        )


@pytest.fixture(params=ENGINES)
def scene(request: pytest.FixtureRequest, testbed: Testbed, manager: FakeManager) -> Scene:
    from tests.testbed.engines import require_engine

    require_engine(request.param)
    return Scene(testbed, manager, WGD_DATAPLANE=str(request.param))


def test_a_killed_daemon_leaves_everything_to_the_next_one(
    scene: Scene, manager: FakeManager, measured: Callable[[str], None]
) -> None:
    left, right = scene.tunnel.left, scene.tunnel.right
    scene.tunnel.assert_works()
    before = network(left.home, left.daemon.interface)
    state = left.daemon.get()
    inode = left.daemon.socket_path.stat().st_ino
    assert manager.names() == ["state", "tun", "uapi-own"]

    kill(left.daemon)
    assert network(left.home, left.daemon.interface) == before
    # Who asks now waits, and is answered by the next.
    with UapiConnection(left.daemon.socket_path) as waiting:
        waiting.send("get=1\n\n")
        started = time.monotonic()
        scene.start()
        assert f"public_key={as_hex(right.keys.public)}" in waiting.reply()
    assert left.ping(right).is_lossless
    measured(
        f"from the start to a ping through a restored tunnel: {time.monotonic() - started:.2f} s"
    )
    assert network(left.home, left.daemon.interface) == before
    assert left.daemon.socket_path.stat().st_ino == inode
    after = left.daemon.get()
    assert after.values == state.values
    assert {key: peer.allowed_ips for key, peer in after.peers.items()} == {
        key: peer.allowed_ips for key, peer in state.peers.items()
    }
    scene.tunnel.assert_works()
    assert manager.names() == ["state", "tun", "uapi-own"], "nothing is kept twice"


def test_after_an_orderly_end_nothing_is_kept(scene: Scene, manager: FakeManager) -> None:
    left = scene.tunnel.left
    left.daemon.signal(signal.SIGTERM)
    manager.wait_for("STOPPING")
    left.daemon.wait_for_end()
    assert manager.names() == []
    assert not left.home.has_interface(left.daemon.interface)
    assert not left.daemon.socket_path.exists()
    assert left.daemon.program.launched().returncode == 0


def test_every_change_is_kept(testbed: Testbed, namespace: Namespace, manager: FakeManager) -> None:
    name = testbed.interface_name()
    daemon = manager.start(testbed, namespace, name)
    keys = [testbed.keys() for _ in range(4)]
    daemon.wg("set", "private-key", testbed.file(testbed.keys().private), "fwmark", "0x2a")
    daemon.up()  # which finds a free port
    for n, peer in enumerate(keys):
        preshared = testbed.file(testbed.preshared_key())
        daemon.wg(
            *("set", "peer", peer.public, "preshared-key", preshared),
            *("endpoint", f"192.0.2.{n}:5", "allowed-ips", f"10.0.{n}.0/24,fd00:{n}::/64"),
            *("persistent-keepalive", str(n)),
        )
    daemon.wg("set", "peer", keys[0].public, "remove")
    daemon.wg("set", "peer", keys[1].public, "allowed-ips", "10.0.2.0/24")  # takes it from peer 2
    before = daemon.get()
    assert before.values["listen_port"] != "0"
    kill(daemon)
    after = manager.start(testbed, namespace, name).get()
    assert after.values == before.values
    assert list(after.peers) == list(before.peers)
    changing = ("tx_bytes", "rx_bytes")
    for key, view in after.peers.items():
        assert view.allowed_ips == before.peers[key].allowed_ips
        for what, value in view.values.items():
            assert value == before.peers[key].values[what] or what in changing


@pytest.mark.parametrize("kills", [3])
def test_it_can_be_killed_again_and_again(
    testbed: Testbed, namespace: Namespace, manager: FakeManager, kills: int
) -> None:
    name = testbed.interface_name()
    for n in range(kills):
        daemon = manager.start(testbed, namespace, name)
        daemon.wg("set", "peer", testbed.keys().public)
        assert len(daemon.get().peers) == n + 1
        kill(daemon)


@only_wgd("several queues")
def test_a_tun_of_several_queues_is_kept(
    testbed: Testbed, namespace: Namespace, manager: FakeManager
) -> None:
    from tests.testbed.engines import require_engine

    require_engine("native")
    name = testbed.interface_name()
    kill(manager.start(testbed, namespace, name, "--dataplane", "native", "--workers", "3"))
    assert manager.names() == ["state", "tun", "tun", "tun", "uapi-own"]
    # Asked for one, it still has three: a device keeps its queues.
    daemon = manager.start(testbed, namespace, name, "--dataplane", "native")
    daemon.program.wait_for_output("workers=3")
    daemon.up()
    namespace.add_address(name, "10.77.0.1/24")
    kill(daemon)
    # Another engine cannot use it, says so, and the store is emptied of nothing.
    program = manager.launch(testbed, namespace, name, "--dataplane", "portable").program
    assert program.launched().returncode == 1
    assert "3 queues" in program.stderr


def test_a_tun_deleted_meanwhile_is_made_anew(
    testbed: Testbed, namespace: Namespace, manager: FakeManager
) -> None:
    name = testbed.interface_name()
    daemon = manager.start(testbed, namespace, name)
    daemon.wg("set", "peer", testbed.keys().public)
    kill(daemon)
    namespace.ip("link", "delete", "dev", name)
    again = manager.start(testbed, namespace, name)
    assert namespace.has_interface(name)
    assert len(again.get().peers) == 1


def test_a_socket_file_removed_meanwhile_is_made_anew(
    testbed: Testbed, namespace: Namespace, manager: FakeManager
) -> None:
    name = testbed.interface_name()
    kill(manager.start(testbed, namespace, name))
    (SOCKET_DIRECTORY / f"{name}.sock").unlink()
    assert manager.start(testbed, namespace, name).get().peers == {}


def test_a_broken_state_is_logged_and_ignored(
    testbed: Testbed, namespace: Namespace, manager: FakeManager
) -> None:
    name = testbed.interface_name()
    daemon = manager.start(testbed, namespace, name)
    daemon.wg("set", "peer", testbed.keys().public)
    kill(daemon)
    (state,) = [fd for kind, fd in manager.store if kind == "state"]
    os.pwrite(state, b"rubbish", 0)
    again = manager.start(testbed, namespace, name)
    again.program.wait_for_output("event=state_unusable")
    assert again.get().peers == {}
    kill(again)
    # And it has begun a new one.
    program = manager.start(testbed, namespace, name).program
    program.wait_for_output("event=ready")
    assert "event=state_unusable" not in program.output


@pytest.mark.parametrize(
    ("name", "said"),
    [("tun", "is not a TUN device"), ("uapi", "is not a socket"), ("other", "wgd knows")],
)
def test_a_foreign_descriptor_is_a_clear_error(
    testbed: Testbed, namespace: Namespace, manager: FakeManager, name: str, said: str
) -> None:
    with Path("/dev/null").open() as foreign:
        manager.store = [(name, os.dup(foreign.fileno()))]
    program = manager.launch(testbed, namespace, testbed.interface_name()).program
    assert program.launched().returncode == 1
    assert program.stderr.count("\n") == 1
    assert said in program.stderr


# -- the socket of somebody else -------------------------------------------------------------------


def test_a_socket_unit_starts_it_at_the_first_question(
    testbed: Testbed, namespace: Namespace, manager: FakeManager
) -> None:
    name = testbed.interface_name()
    path = SOCKET_DIRECTORY / f"{name}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        inode = path.stat().st_ino
        manager.store = [("uapi", os.dup(listener.fileno()))]
        with UapiConnection(path) as first:
            first.send("set=1\nfwmark=7\n\n")
            daemon = manager.start(testbed, namespace, name)
            assert first.reply() == ["errno=0"]
        assert daemon.get().values["fwmark"] == "7"
        assert manager.names() == ["state", "tun", "uapi"]
        kill(daemon)
        again = manager.start(testbed, namespace, name)
        assert again.get().values["fwmark"] == "7"
        again.signal(signal.SIGTERM)
        again.wait_for_end()
        assert path.stat().st_ino == inode, "the file is the unit's"
    wait_until(lambda: not namespace.has_interface(name) or manager.names() == ["uapi"], what="end")
