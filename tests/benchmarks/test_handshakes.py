"""The peers that `benchmarks/handshakes` plays, against a responder and an initiator in Python."""

import os
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from handshake_crowd import Crowd
from handshake_rounds import Round, markdown
from implementations import Implementation
from machine import Machine
from processes import BenchmarkError

from wgd.clock import Instant
from wgd.noise.cookie import CookieGenerator
from wgd.noise.handshake import Handshake, StaticIdentity, identify_initiator
from wgd.noise.keypair import Keypair
from wgd.noise.messages import (
    TRANSPORT_HEADER,
    CookieReply,
    Initiation,
    MessageType,
    Response,
    message_type,
)
from wgd.noise.primitives import seal, unseal

COOKIE_REPLY = CookieReply(7, bytes(24), bytes(32)).to_bytes()


class Daemon:
    """Stands for the bed, its socket and the daemon; `is_loaded` after so many initiations."""

    def __init__(self, crowd: Crowd, *, is_loaded_after: int = 1000) -> None:
        self.peers = self
        self.identity = StaticIdentity(_bytes(crowd.daemon_private_key))
        self.statics = [_bytes(key) for key in crowd.public_keys]
        self.handshakes: dict[int, Handshake] = {}
        self.keypairs: dict[int, Keypair] = {}
        self.received: deque[tuple[int, bytes]] = deque()
        self.confirmed = 0
        self.most_under_way = 0
        self.is_loaded_after = is_loaded_after
        self.opened = b""

    def send(self, peer: int, datagram: bytes) -> None:
        kind = message_type(datagram)
        if kind is MessageType.INITIATION:
            self.received.append((peer, self._respond(datagram)))
        elif kind is MessageType.RESPONSE:
            handshake = self.handshakes[peer]
            handshake.consume_response(Response.parse(datagram))
            keypair = handshake.derive_keypair(0)
            header = TRANSPORT_HEADER.pack(4, keypair.remote_index, 0)
            self.received.append((peer, header + seal(keypair.send_key, 0, self.opened, b"")))
        else:
            _, index, counter = TRANSPORT_HEADER.unpack_from(datagram)
            assert unseal(self.keypairs[index].receive_key, counter, datagram[16:], b"") == b""
            self.confirmed += 1

    def _respond(self, datagram: bytes) -> bytes:
        if not self.is_loaded_after:
            return COOKIE_REPLY
        self.is_loaded_after -= 1
        identified = identify_initiator(self.identity, Initiation.parse(datagram))
        handshake = Handshake(self.identity, identified.initiator)
        handshake.consume_initiation(identified, 0)
        index = 1000 + len(self.keypairs)
        response = handshake.create_response(index, os.urandom)
        self.keypairs[index] = handshake.derive_keypair(0)
        return CookieGenerator(identified.initiator).add_macs(response, 0)

    def send_data(self, peer: int) -> None:
        handshake = self.handshakes[peer] = Handshake(self.identity, self.statics[peer])
        message = handshake.create_initiation(Instant(0, 10**18), 5000 + peer, os.urandom)
        self.received.append((peer, CookieGenerator(self.statics[peer]).add_macs(message, 0)))

    def receive(self) -> tuple[int, bytes]:
        self.most_under_way = max(self.most_under_way, len(self.received))
        if not self.received:
            raise TimeoutError
        return self.received.popleft()


def _bytes(base64: str) -> bytes:
    from base64 import b64decode

    return b64decode(base64)


def test_the_daemon_responds() -> None:
    crowd = Crowd(5)
    daemon: Any = Daemon(crowd)
    prepared = crowd.prepare()
    assert len(crowd.initiate(daemon, prepared, window=3)) == 5
    assert (daemon.confirmed, daemon.most_under_way) == (5, 3)
    assert crowd.prepare()[0].datagram != prepared[0].datagram


def test_the_daemon_initiates() -> None:
    crowd = Crowd(5)
    daemon: Any = Daemon(crowd)
    assert len(crowd.respond(daemon, range(1, 5), window=2)) == 4
    assert daemon.most_under_way == 2


def test_what_is_no_handshake_is_an_error() -> None:
    crowd = Crowd(2)
    loaded: Any = Daemon(crowd, is_loaded_after=1)
    with pytest.raises(BenchmarkError, match="a cookie reply in place of a response"):
        crowd.initiate(loaded, crowd.prepare())
    silent: Any = Daemon(crowd)
    silent.send = lambda _peer, _datagram: None
    with pytest.raises(BenchmarkError, match="nothing for a long time"):
        crowd.initiate(silent, crowd.prepare())


def test_the_tables_have_medians_and_ratios_within_pairs() -> None:
    def measured(pair: int, name: str, rate: float) -> Round:
        figures = {"handshakes_per_cpu_second": rate, "handshakes_per_second": rate * 2}
        return Round(pair, "responder", name, figures | {"latency_median_ms": 1 / rate})

    rounds = [
        *(measured(1, "wireguard-go", 1000), measured(1, "wgd-native", 1500)),
        *(measured(2, "wgd-native", 4000), measured(2, "wireguard-go", 2000)),
        measured(3, "wgd-native", 9000),  # has no pair
    ]
    tested = [
        Implementation(name, Path("/bin/true"), f"{name} 1.0")
        for name in ("wgd-native", "wireguard-go")
    ]
    machine = Machine("A CPU", True, 2, 3.5, "Linux 6", "iperf 3", "2026-01-02")
    lines = list(markdown(100, machine, tested, rounds))
    assert "| responder | per CPU-second ↑ | 1.75 (1.50 to 2.00) |" in lines
    assert "| responder | ms, one at a time ↓ | 0.58 (0.50 to 0.67) |" in lines
    assert ("| responder | per second ↑ | 5500 (3000 to 8000) | 3000 (2000 to 4000) |") in lines
