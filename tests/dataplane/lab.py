"""A laboratory around one engine: a TUN, a UDP network, a clock, and the far ends of sessions.

Tests speak only to `Lab` and to the `DataPlane` interface, so that any engine can take them. The
far end seals and opens with `cryptography` directly: the wire format is checked independently.
"""

import ipaddress
import os
import random
import select
import struct
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgd.addresses import Endpoint, Prefix
from wgd.clock import VirtualClock
from wgd.dataplane.interface import DatagramSocket, DataPlane, PeerId
from wgd.dataplane.keypairs import Session
from wgd.dataplane.portable import PortableDataPlane
from wgd.dataplane.portable_state import Drops
from wgd.dataplane.reader import Loop
from wgd.net.memory import MemoryNetwork, MemorySocket
from wgd.noise.keypair import Keypair
from wgd.tun.memory import MemoryTun

SECOND = 1_000_000_000
PORT = 51820

A = PeerId(1)
B = PeerId(2)

A_ADDRESS = "192.0.2.1"
B_ADDRESS = "192.0.2.2"
OUR_ADDRESS = "192.0.2.100"

_payloads = random.Random(1)  # the same in every run, because packets are test parameters, too


def prefix(text: str) -> Prefix:
    network = ipaddress.ip_network(text)
    return Prefix(network.network_address.packed, network.prefixlen)


def ipv4(source: str, destination: str, size: int = 20) -> bytes:
    """An IPv4 packet of `size` bytes, header included; its payload tells packets apart."""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        size,
        0,
        0,
        64,
        17,
        0,
        ipaddress.IPv4Address(source).packed,
        ipaddress.IPv4Address(destination).packed,
    )
    return header + _payloads.randbytes(size - 20)


def ipv6(source: str, destination: str, size: int = 40) -> bytes:
    """An IPv6 packet of `size` bytes, header included."""
    header = struct.pack(
        "!IHBB16s16s",
        6 << 28,
        size - 40,
        17,
        64,
        ipaddress.IPv6Address(source).packed,
        ipaddress.IPv6Address(destination).packed,
    )
    return header + _payloads.randbytes(size - 40)


@dataclass
class FarEnd:
    """The other end of a session: it opens what we seal, and seals what we open."""

    our_index: int
    their_index: int
    from_us: bytes
    to_us: bytes
    counter: int = 0

    def open(self, datagram: bytes) -> tuple[int, bytes]:
        """Return counter and plaintext of a transport message; fails unless it is for this end."""
        assert datagram[:4] == b"\x04\x00\x00\x00"
        assert struct.unpack("<I", datagram[4:8])[0] == self.their_index
        nonce = bytes(4) + datagram[8:16]
        plaintext = ChaCha20Poly1305(self.from_us).decrypt(nonce, datagram[16:], None)
        return struct.unpack("<Q", datagram[8:16])[0], plaintext

    def seal(self, plaintext: bytes, counter: int | None = None, *, pad: bool = True) -> bytes:
        """Return a transport message for us; counters count up by themselves."""
        if counter is None:
            counter = self.counter
            self.counter += 1
        padded = plaintext + bytes(-len(plaintext) % 16 if pad else 0)
        nonce = bytes(4) + counter.to_bytes(8, "little")
        sealed = ChaCha20Poly1305(self.to_us).encrypt(nonce, padded, None)
        return struct.pack("<IIQ", 4, self.our_index, counter) + sealed


class SteppedEngine(DataPlane, Protocol):
    """What the tests need of an engine beyond the interface."""

    @property
    def drops(self) -> Drops: ...

    def start(self, loop: Loop) -> None: ...

    def stop(self) -> None: ...

    def receive_from_tun(self) -> bool: ...

    def receive_from_socket(self, socket: DatagramSocket) -> bool: ...


class Lab:
    """The portable engine with two peers: A has 10.0.0.0/8 and fd00::/8, B has 10.1.0.0/16."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.network = MemoryNetwork(self.clock)
        self.tun = MemoryTun()
        host = self.network.host("us", OUR_ADDRESS, "2001:db8::100")
        self.host = host
        self.socket = host.bind(port=PORT)
        self.socket6 = host.bind(port=PORT, is_ipv6=True)
        self.at_a = self.network.host("a", A_ADDRESS).bind(port=PORT)
        self.at_b = self.network.host("b", B_ADDRESS).bind(port=PORT)
        self.at_a6 = self.network.host("a6", "2001:db8::1").bind(port=PORT, is_ipv6=True)
        self.engine = self.make_engine()
        self.engine.attach_sockets([self.socket, self.socket6])
        for peer, address, prefixes in (
            (A, A_ADDRESS, ("10.0.0.0/8", "fd00::/8")),
            (B, B_ADDRESS, ("10.1.0.0/16",)),
        ):
            self.engine.add_peer(peer)
            self.engine.set_endpoint(peer, Endpoint(address, PORT))
            for text in prefixes:
                self.engine.add_allowed_ip(peer, prefix(text))
        self._indices = 1000

    def make_engine(self) -> SteppedEngine:
        """The engine that this laboratory is about."""
        return PortableDataPlane(self.tun, self.clock)

    def close(self) -> None:
        """Give everything back."""
        self.engine.stop()
        self.tun.release()
        for socket in (self.socket, self.socket6, self.at_a, self.at_b, self.at_a6):
            socket.close()

    # -- sessions ----------------------------------------------------------------------------------

    def make(self, *, initiator: bool) -> tuple[Keypair, FarEnd]:
        """A fresh keypair of ours, and its far end."""
        self._indices += 1
        far = FarEnd(self._indices, self._indices + 5000, os.urandom(32), os.urandom(32))
        keypair = Keypair(
            local_index=far.our_index,
            remote_index=far.their_index,
            send_key=far.from_us,
            receive_key=far.to_us,
            is_initiator=initiator,
            created_ns=self.clock.boot_ns(),
        )
        return keypair, far

    def install(self, peer: PeerId = A, *, initiator: bool = True) -> FarEnd:
        """Install a fresh keypair and return its far end."""
        keypair, far = self.make(initiator=initiator)
        self.engine.install_keypair(peer, keypair)
        return far

    def complete(self, peer: PeerId = A) -> FarEnd:
        """Complete a handshake as initiator, as the control plane does: whatever waits is sent."""
        far = self.install(peer)
        self.engine.send_staged(peer)
        return far

    def established(self, peer: PeerId = A, *, initiator: bool = True) -> FarEnd:
        """A session that both ends use, its events and stamps out of the way."""
        far = self.install(peer, initiator=initiator)
        if not initiator:
            self.inbound(far.seal(b""), peer)
        self.engine.drain_events()
        return far

    def set_send_counter(self, peer: PeerId, counter: int) -> None:
        """Let the next packet to `peer` have this counter (the hook that each engine needs)."""
        self._current(peer).send_counter = counter

    def _current(self, peer: PeerId) -> Session:
        assert isinstance(self.engine, PortableDataPlane)
        session = self.engine._state.peers[peer].keypairs.current
        assert session is not None
        return session

    # -- packets and datagrams ---------------------------------------------------------------------

    def outbound(self, *packets: bytes) -> None:
        """Send packets into the tunnel and let the engine work until it has seen them all."""
        for packet in packets:
            assert self.tun.inject(packet)
        for _ in range(len(packets) // 16 + 1):
            self.engine.receive_from_tun()

    def inbound(self, datagram: bytes, sender: PeerId | MemorySocket = A) -> None:
        """Send a datagram to us (IPv4) and let the engine work."""
        socket = {A: self.at_a, B: self.at_b}[sender] if isinstance(sender, int) else sender
        socket.send(datagram, Endpoint(OUR_ADDRESS, PORT))
        self.engine.receive_from_socket(self.socket)

    def sent(self, receiver: PeerId | MemorySocket = A) -> list[bytes]:
        """All datagrams that reached a peer since the last call."""
        socket = {A: self.at_a, B: self.at_b}[receiver] if isinstance(receiver, int) else receiver
        datagrams: list[bytes] = []
        buffer = memoryview(bytearray(65_535))
        while True:
            try:
                length, *_ = socket.receive_into(buffer)
            except BlockingIOError:
                return datagrams
            datagrams.append(bytes(buffer[:length]))

    def delivered(self) -> list[bytes]:
        """All packets that came out of the tunnel since the last call."""
        return self.tun.take()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(round(seconds * SECOND))

    def is_readable(self) -> bool:
        """Whether the engine's event descriptor is."""
        return bool(select.select([self.engine.event_fd()], [], [], 0)[0])


class NativeLab(Lab):
    """The native engine with the same peers, stepped on objects: no thread runs."""

    def make_engine(self) -> SteppedEngine:
        from wgd.dataplane.native import NativeDataPlane

        return NativeDataPlane(self.tun, self.clock)

    def set_send_counter(self, peer: PeerId, counter: int) -> None:
        from wgd.dataplane.native import NativeDataPlane

        assert isinstance(self.engine, NativeDataPlane)
        self.engine._engine.set_send_counter(peer, counter)
