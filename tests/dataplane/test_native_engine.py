"""The extension's own edges: descriptors that are none, and its life from start to stop."""

import errno
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.testbed.engines import NATIVE, require_engine

if TYPE_CHECKING:
    import wgd_native


@pytest.fixture
def engine() -> Iterator["wgd_native.Engine"]:
    require_engine(NATIVE)
    import wgd_native

    made = wgd_native.Engine()
    yield made
    made.stop()


def start(engine: "wgd_native.Engine", *fds: int) -> None:
    engine.start(fds, virtio_header_size=0, has_packet_information=False)


@pytest.fixture
def tun() -> Iterator[int]:
    """What behaves like a TUN that nothing comes out of."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with ours, theirs:
        yield ours.fileno()


def closed_descriptor() -> int:
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    return fd


def test_errors_of_the_system_keep_their_number(engine: "wgd_native.Engine", tun: int) -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as refused:
        start(engine, closed_descriptor())
    assert refused.value.errno == errno.EBADF
    assert refused.value.strerror == "Bad file descriptor"
    start(engine, tun)
    with pytest.raises(OSError, match="Bad file descriptor") as refused:
        engine.attach_sockets([(closed_descriptor(), False, 1)])
    assert refused.value.errno == errno.EBADF


@pytest.mark.parametrize(("fds", "what"), [((), "no TUN descriptor"), ((-1,), "-1")])
def test_what_is_no_descriptor_is_named(
    engine: "wgd_native.Engine", fds: tuple[int, ...], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        start(engine, *fds)


def test_it_starts_once_and_stops_more_than_once(engine: "wgd_native.Engine", tun: int) -> None:
    with pytest.raises(RuntimeError, match="not running"):
        engine.attach_sockets([])
    start(engine, tun)
    with pytest.raises(RuntimeError, match="before"):
        start(engine, tun)
    engine.add_peer(1)
    engine.stop()
    engine.stop()
    with pytest.raises(KeyError, match="unknown peer"):
        engine.stamps(1)
    with pytest.raises(RuntimeError, match="before"):
        start(engine, tun)


def test_bad_values_are_refused_by_name(engine: "wgd_native.Engine") -> None:
    engine.add_peer(1)
    with pytest.raises(ValueError, match='"host" is not an IP address'):
        engine.set_endpoint(1, ("host", 1, 0, None))
    with pytest.raises(ValueError, match="prefix length 33"):
        engine.add_allowed_ip(1, bytes(4), 33)
    with pytest.raises(ValueError, match="an address of 5 bytes"):
        engine.add_allowed_ip(1, bytes(5), 1)
    with pytest.raises(ValueError, match="a key of 31 bytes"):
        engine.set_handshake_keys(bytes(31), bytes(32))
    with pytest.raises(KeyError, match="unknown peer"):
        engine.set_endpoint(2, ("192.0.2.1", 1, 0, None))
