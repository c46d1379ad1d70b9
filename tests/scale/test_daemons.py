"""A daemon that is given, and asked for, thousands of peers while others shake hands with it."""

import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pytest

from tests.testbed.bed import Testbed
from tests.testbed.daemons import Daemon
from tests.testbed.uapi import uapi_get, uapi_set
from wgd.clock import SystemClock
from wgd.noise.cookie import CookieGenerator
from wgd.noise.handshake import Handshake, StaticIdentity
from wgd.noise.messages import Response
from wgd.noise.primitives import PrivateKey

pytestmark = pytest.mark.netns

MANY = 3000
CALLERS = 128
ANSWER_TIMEOUT_SECONDS = 5

T = TypeVar("T")


class Callers:
    """Known peers in one socket, who shake hands one after the other; each must be answered."""

    def __init__(self, daemon: Daemon, port: int, server: bytes) -> None:
        self._socket = daemon.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(ANSWER_TIMEOUT_SECONDS)
        self._socket.connect(("127.0.0.1", port))
        identities = [StaticIdentity(os.urandom(32)) for _ in range(CALLERS)]
        self.public_keys = [identity.public_key for identity in identities]
        self._handshakes = [Handshake(identity, server) for identity in identities]
        self._cookies = CookieGenerator(server)
        self.made = 0

    def call(self) -> None:
        """Make one handshake."""
        handshake = self._handshakes[self.made % CALLERS]
        self.made += 1
        now = SystemClock().now()
        message = handshake.create_initiation(now, self.made, os.urandom)
        self._socket.send(self._cookies.add_macs(message, now.boot_ns))
        response = Response.parse(self._socket.recv(2048))
        assert response.receiver_index == self.made
        handshake.consume_response(response)

    def call_until(self, work: Future[T]) -> T:
        """Make handshakes until something is done, and return what came of it."""
        while not work.done():
            self.call()
        return work.result()

    def close(self) -> None:
        self._socket.close()


def peers(count: int) -> str:
    return "".join(
        f"public_key={number + 1:064x}\nallowed_ip={address(number)}\n" for number in range(count)
    )


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32"


def test_a_set_and_a_get_of_thousands_lose_no_handshake(testbed: Testbed) -> None:
    daemon = testbed.daemon(testbed.namespace())
    private_key = os.urandom(32)
    path = daemon.socket_path
    assert uapi_set(path, f"private_key={private_key.hex()}\nlisten_port=51820\n") == ["errno=0"]
    daemon.up()
    callers = Callers(daemon, 51820, PrivateKey(private_key).public_key)
    try:
        known = "".join(f"public_key={key.hex()}\n" for key in callers.public_keys)
        assert uapi_set(path, known) == ["errno=0"]
        with ThreadPoolExecutor(1) as pool:
            assert callers.call_until(pool.submit(uapi_set, path, peers(MANY))) == ["errno=0"]
            made_amid_the_set = callers.made
            view = callers.call_until(pool.submit(uapi_get, path))
        assert 0 < made_amid_the_set < callers.made
        expected = {f"{number + 1:064x}": [address(number)] for number in range(MANY)}
        expected |= {public_key.hex(): [] for public_key in callers.public_keys}
        assert {key: peer.allowed_ips for key, peer in view.peers.items()} == expected
    finally:
        callers.close()
