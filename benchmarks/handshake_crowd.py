"""The peers of the daemon that is measured: they begin handshakes with it, or answer its own.

A handshake is an initiation, a response and a first transport message, which confirms it. Every
message of the daemon is opened. Only so many handshakes are under way at once that no daemon thinks
itself under load, which from 128 messages in its queue on it would.
"""

import base64
import os
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from handshake_bed import Bed, PeerSocket
from processes import BenchmarkError

from wgd.clock import Instant
from wgd.errors import HandshakeError
from wgd.noise.cookie import CookieGenerator
from wgd.noise.handshake import Handshake, StaticIdentity, identify_initiator
from wgd.noise.keypair import Keypair
from wgd.noise.messages import (
    TRANSPORT_HEADER,
    Initiation,
    MessageType,
    Response,
    message_type,
)
from wgd.noise.primitives import seal, unseal

WINDOW: Final = 32
"""How many handshakes are under way at once."""

_TIMESTAMP_STEP_NS: Final = 20_000_000  # a timestamp tells no less than 16.8 ms
_NAMES: Final = {kind: kind.name.lower().replace("_", " ") for kind in MessageType}


@dataclass(frozen=True)
class Prepared:
    """An initiation that was made beforehand, by which peer, and what its answer completes."""

    peer: int
    local_index: int
    handshake: Handshake
    datagram: bytes


class Crowd:
    """`count` peers with new keys, and the key of the daemon they belong to."""

    def __init__(self, count: int) -> None:
        self._daemon = StaticIdentity(os.urandom(32))
        self._identities = [StaticIdentity(os.urandom(32)) for _ in range(count)]
        self._rounds = 0
        self._indices = 0

    @property
    def daemon_private_key(self) -> str:
        """The daemon's private key (base64)."""
        return base64.b64encode(self._daemon.private_key.to_bytes()).decode()

    @property
    def public_keys(self) -> list[str]:
        """The peers' public keys (base64)."""
        return [base64.b64encode(each.public_key).decode() for each in self._identities]

    # -- the daemon responds -----------------------------------------------------------------------

    def prepare(self) -> list[Prepared]:
        """Make an initiation of each peer, newer than those before."""
        self._rounds += 1
        now = Instant(0, time.time_ns() + self._rounds * _TIMESTAMP_STEP_NS)
        prepared = []
        for peer, identity in enumerate(self._identities):
            handshake = Handshake(identity, self._daemon.public_key)
            self._indices += 1
            message = handshake.create_initiation(now, self._indices, os.urandom)
            datagram = CookieGenerator(self._daemon.public_key).add_macs(message, 0)
            prepared.append(Prepared(peer, self._indices, handshake, datagram))
        return prepared

    def initiate(
        self, made: Bed, prepared: list[Prepared], *, window: int = WINDOW, confirms: bool = True
    ) -> list[float]:
        """Make all these handshakes, and return how long each response took (seconds)."""
        waiting = deque(prepared)
        sent: dict[int, tuple[Prepared, float]] = {}
        latencies = []
        while waiting or sent:
            while waiting and len(sent) < window:
                begun = waiting.popleft()
                sent[begun.local_index] = begun, time.perf_counter()
                made.peers.send(begun.peer, begun.datagram)
            peer, datagram = _receive(made.peers)
            arrived = time.perf_counter()
            response = Response.parse(_expected(datagram, MessageType.RESPONSE))
            begun, sent_at = sent.pop(response.receiver_index)
            latencies.append(arrived - sent_at)
            begun.handshake.consume_response(response)
            if confirms:
                made.peers.send(peer, _confirmation(begun.handshake.derive_keypair(0)))
        return latencies

    # -- the daemon initiates ----------------------------------------------------------------------

    def respond(self, made: Bed, peers: Sequence[int], *, window: int = WINDOW) -> list[float]:
        """Send data to these peers, answer the initiation that each gets, and open the data.

        Returns how long each took from the data that was sent to the data that arrived (seconds),
        without the time that the answer took to be made.
        """
        waiting = deque(peers)
        called: dict[int, float] = {}
        answered: dict[int, tuple[Keypair, float]] = {}
        latencies = []
        while waiting or called or answered:
            while waiting and len(called) + len(answered) < window:
                called[waiting[0]] = time.perf_counter()
                made.send_data(waiting.popleft())
            peer, datagram = _receive(made.peers)
            arrived = time.perf_counter()
            if peer in called:
                initiation = Initiation.parse(_expected(datagram, MessageType.INITIATION))
                took = arrived - called.pop(peer)
                response, keypair = self._answer(peer, initiation)
                answered[peer] = keypair, time.perf_counter() - took
                made.peers.send(peer, response)
            elif peer in answered:
                keypair, begun = answered.pop(peer)
                latencies.append(arrived - begun)
                _check_data(datagram, keypair)
        return latencies

    def _answer(self, peer: int, initiation: Initiation) -> tuple[bytes, Keypair]:
        identity = self._identities[peer]
        identified = identify_initiator(identity, initiation)
        handshake = Handshake(identity, self._daemon.public_key)
        handshake.consume_initiation(identified, 0)
        self._indices += 1
        message = handshake.create_response(self._indices, os.urandom)
        response = CookieGenerator(self._daemon.public_key).add_macs(message, 0)
        return response, handshake.derive_keypair(0)


def median_ms(latencies: list[float]) -> float:
    """Return the median of seconds, in milliseconds."""
    return statistics.median(latencies) * 1000


def _receive(socket: PeerSocket) -> tuple[int, bytes]:
    try:
        received = socket.receive()
    except TimeoutError:
        raise BenchmarkError("the daemon has said nothing for a long time") from None
    assert received is not None  # noqa: S101 - it was waited for
    return received


def _expected(datagram: bytes, expected: MessageType) -> bytes:
    kind = message_type(datagram)
    if kind is not expected:
        found = "no message at all" if kind is None else f"a {_NAMES[kind]}"
        raise BenchmarkError(f"the daemon sent {found} in place of a {_NAMES[expected]}")
    return datagram


def _confirmation(keypair: Keypair) -> bytes:
    """Return a keepalive, the first message under this keypair."""
    header = TRANSPORT_HEADER.pack(MessageType.TRANSPORT, keypair.remote_index, 0)
    return header + seal(keypair.send_key, 0, b"", b"")


def _check_data(datagram: bytes, keypair: Keypair) -> None:
    _expected(datagram, MessageType.TRANSPORT)
    _, index, counter = TRANSPORT_HEADER.unpack_from(datagram)
    try:
        unseal(keypair.receive_key, counter, datagram[TRANSPORT_HEADER.size :], b"")
    except HandshakeError:
        raise BenchmarkError("the daemon sent a packet that does not open") from None
    if index != keypair.local_index:
        raise BenchmarkError("the daemon sent a packet to a session that is not its peer's")
