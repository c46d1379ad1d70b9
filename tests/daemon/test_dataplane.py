"""Which engine a daemon uses and how: what it says, its threads, its workers and offloads."""

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed import Daemon, Namespace, Testbed, Tunnel, only_wgd
from tests.testbed.engines import NATIVE, PORTABLE, require_engine
from tests.testbed.transfer import exchange_everything, transfer

pytestmark = [pytest.mark.netns, only_wgd("a choice of engines")]

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000


@pytest.fixture
def namespace(testbed: Testbed) -> Namespace:
    return testbed.namespace()


@pytest.fixture
def native() -> str:
    require_engine(NATIVE)
    return NATIVE


def threads(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))


def test_the_engine_is_the_one_asked_for_and_logged_once(
    testbed: Testbed, namespace: Namespace, engine: str
) -> None:
    daemon = testbed.daemon(namespace, engine=engine)
    daemon.program.wait_for_output("event=ready")
    assert daemon.program.output.count(f"event=dataplane name={engine} ") == 1
    assert namespace.has_tcp_segmentation(daemon.interface) == (engine == NATIVE)


def test_threads_are_those_of_the_engine_and_end_with_it(
    testbed: Testbed, namespace: Namespace, native: str
) -> None:
    portable = testbed.daemon(namespace, engine=PORTABLE)
    one, three = (
        testbed.daemon(
            namespace, engine=native, environment={"LOG_LEVEL": "verbose", "WGD_WORKERS": workers}
        )
        for workers in ("1", "3")
    )
    assert threads(one) - threads(portable) == 2
    assert threads(three) - threads(portable) == 6
    for daemon in (one, three):
        daemon.socket_path.unlink()
        daemon.wait_for_end()
        assert not namespace.has_interface(daemon.interface)


def test_native_that_is_not_installed_is_refused(testbed: Testbed, namespace: Namespace) -> None:
    hide = "import sys; sys.modules['wgd_native'] = None; from wgd.cli import main; main()"
    launch = testbed.run_program(
        namespace,
        *("--dataplane", "native", testbed.interface_name()),
        command=[sys.executable, "-c", hide],
    ).launched()
    assert launch.returncode == 1
    assert launch.stderr.count("\n") == 1
    assert "--dataplane native: wgd-native is not installed: pip install" in launch.stderr


def test_a_tun_in_use_is_not_shared_by_workers(
    testbed: Testbed, namespace: Namespace, native: str
) -> None:
    many = {"WGD_WORKERS": "2", "WGD_DATAPLANE": native}
    for first, second in ((many, many), ({}, many), (many, {})):
        daemon = testbed.daemon(namespace, environment=first)
        launch = testbed.run_program(namespace, daemon.interface, environment=second).launched()
        assert launch.returncode == 1
        assert daemon.interface in launch.stderr
        assert daemon.is_running()


def test_one_descriptor_is_no_work_for_two(
    testbed: Testbed, namespace: Namespace, native: str
) -> None:
    name = testbed.interface_name()
    with namespace.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR)
    try:
        flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        environment = {"WG_TUN_FD": str(fd), "WGD_WORKERS": "2", "WGD_DATAPLANE": native}
        launch = testbed.run_program(
            namespace, name, environment=environment, pass_fds=[fd]
        ).launched()
    finally:
        os.close(fd)
    assert launch.returncode == 1
    assert "WG_TUN_FD: " in launch.stderr


# -- traffic ---------------------------------------------------------------------------------------


def test_without_offloads_everything_arrives(engine: str) -> None:
    environment = {"WGD_DATAPLANE": engine, "WGD_NO_OFFLOAD": "1"}
    with Testbed(environment=environment) as bed:
        tunnel = Tunnel.build(bed)
        left = tunnel.left
        assert not left.home.has_tcp_segmentation(left.daemon.interface)
        exchange_everything(tunnel, 1420)


@pytest.fixture
def workers(native: str) -> Iterator[Tunnel]:
    """A tunnel whose ends have three workers each."""
    with Testbed(environment={"WGD_DATAPLANE": native, "WGD_WORKERS": "3"}) as bed:
        yield Tunnel.build(bed)


def test_several_workers_deliver_everything(workers: Tunnel) -> None:
    workers.assert_works()
    exchange_everything(workers, 1420)


def test_several_workers_keep_the_order_within_a_flow(workers: Tunnel) -> None:
    workers.assert_works()  # there is a session: nothing waits for one
    left, right = workers.left, workers.right
    flows, bursts, burst = 16, 50, 8
    with right.home.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(5)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        server.bind((right.inner4, 0))
        clients = [left.home.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
        try:
            for client in clients:
                client.connect(server.getsockname())
            seen: dict[object, list[int]] = {}
            for first in range(0, bursts * burst, burst):
                # Many of each flow are under way at once, but no more than all queues hold.
                for number in range(first, first + burst):
                    for client in clients:
                        client.send(struct.pack("!I", number) + bytes(200))
                for _ in range(flows * burst):
                    data, sender = server.recvfrom(2000)
                    seen.setdefault(sender, []).append(struct.unpack("!I", data[:4])[0])
        finally:
            for client in clients:
                client.close()
    assert list(seen.values()) == [list(range(bursts * burst))] * flows


def test_workers_share_a_port_that_nobody_else_can_have(workers: Tunnel) -> None:
    left, right = workers.left, workers.right
    transfer(left.home, right.home, right.inner4, 1_000_003)
    stranger = right.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("", right.port))
    right.daemon.wg("set", "listen-port", "51999")
    assert right.namespace.udp_ports() & {right.port, 51999} == {51999}
