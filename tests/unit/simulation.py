"""Whole devices on a memory network and a virtual clock: the harness of the protocol tests.

    host.tun.inject ─▶ PortableDataPlane ─▶ MemoryNetwork ─▶ PortableDataPlane ─▶ host.received
                            Device                               Device

Time moves only in `Simulation.run`, from one deadline to the next.
"""

import base64
import ipaddress
import itertools
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.dataplane.lab import SteppedEngine
from wgd.addresses import Endpoint, Prefix
from wgd.clock import Clock, VirtualClock
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange, PeerState
from wgd.core.device import Device
from wgd.dataplane.interface import OffloadOff, TunClosed
from wgd.dataplane.portable import PortableDataPlane
from wgd.diagnosis import Failure, FailureReason
from wgd.net.memory import MemoryNetwork, Transit
from wgd.noise.cookie import HandshakeKeys
from wgd.noise.primitives import PrivateKey, mac
from wgd.status import PeerStatus
from wgd.tun.memory import MemoryTun

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
PORT = 51820

INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT = 1, 2, 3, 4

LOAD_AND_SHARE = 128 + 64


class Sent(NamedTuple):
    """A datagram as it was sent, with the time in nanoseconds since the simulation began."""

    at_ns: int
    sender: str
    kind: int
    size: int
    transit: Transit

    @property
    def is_keepalive(self) -> bool:
        return self.kind == TRANSPORT and self.size == 32


class Host:
    """A device, its data plane, and a way to look at both. It may have a clock of its own."""

    def __init__(
        self,
        simulation: "Simulation",
        name: str,
        address: str,
        tunnel_ip: str,
        clock: Clock | None = None,
    ) -> None:
        self.simulation = simulation
        self.clock = clock or simulation.clock
        self.name = name
        self.tunnel_ip = tunnel_ip
        self.private_key = simulation.random.randbytes(32)
        self.public_key = PrivateKey(self.private_key).public_key
        self.tun = MemoryTun()
        self.host = simulation.network.host(name, address)
        self.sockets = [self.host.bind(is_ipv6=":" in address, port=PORT)]
        self.dataplane = self.make_dataplane()
        self.home = Endpoint(address, PORT)
        """Where it is unless a test moves it."""
        self.device = Device(
            self.dataplane,
            simulation.random.randbytes,
            look_up=self._look_up,
        )
        self.names: dict[str, Sequence[Endpoint]] = {}
        """What a name stands for; lookups of any other find nothing."""
        self.lookups: list[tuple[int, str]] = []
        """When which name was looked up."""
        self._unanswered_lookups: list[tuple[bytes, str, int]] = []
        self.received: list[bytes] = []
        self._flooders = itertools.count()
        self.dataplane.attach_sockets(self.sockets)
        self.configure(private_key=self.private_key)
        self.device.set_link_up(True, self.clock.now())

    def make_dataplane(self) -> SteppedEngine:
        """Return the engine; a test that wants to watch it returns its own."""
        return PortableDataPlane(self.tun, self.clock, self.simulation.random.randbytes)

    def _look_up(self, public_key: bytes, host: str, port: int) -> None:
        self.lookups.append((self.simulation.now_ns, host))
        self._unanswered_lookups.append((public_key, host, port))

    def add_ipv6(self, address: str) -> Endpoint:
        """Give the host an IPv6 address, too."""
        self.host.addresses = (*self.host.addresses, address)
        self.sockets.append(self.host.bind(is_ipv6=True, port=PORT))
        self.dataplane.attach_sockets(self.sockets)
        return Endpoint(address, PORT)

    @property
    def endpoint(self) -> Endpoint:
        addresses = self.host.addresses or (self.home.host,)
        return Endpoint(addresses[0], PORT)

    def configure(self, **change: Any) -> None:
        self.device.configure(DeviceChange(**change), self.clock.now())

    def add_peer(self, other: "Host", *, endpoint: bool = True, **change: Any) -> None:
        prefix = Prefix(ipaddress.ip_address(other.tunnel_ip).packed, 32)
        self.change_peer(
            other,
            endpoint=other.endpoint if endpoint else None,
            allowed_ips=(AllowedIpChange(prefix),),
            **change,
        )

    def change_peer(self, other: "Host", **change: Any) -> None:
        self.configure(peers=(PeerChange(other.public_key, **change),))

    def send(self, other: "Host", payload: bytes = b"hello") -> bytes:
        """Put an IPv4 packet for the other host's tunnel address into the tunnel."""
        packet = ip_packet(self.tunnel_ip, other.tunnel_ip, payload)
        assert self.tun.inject(packet)
        self.simulation.settle()
        return packet

    def peer(self, other: "Host") -> PeerState:
        (state,) = [p for p in self.device.state().peers if p.public_key == other.public_key]
        return state

    def status(self, other: "Host") -> PeerStatus:
        key = base64.b64encode(other.public_key).decode()
        status = self.device.status(self.clock.now())
        (shown,) = [peer for peer in status.peers if peer.public_key == key]
        return shown

    def failure(self, reason: FailureReason, other: "Host | None" = None) -> Failure | None:
        """Return what is known of one reason: of a peer, or of nobody."""
        shown = self.device.status(self.clock.now()) if other is None else None
        failures = self.status(other).failures if other else shown.failures if shown else ()
        return next((failure for failure in failures if failure.reason is reason), None)

    def next_deadline(self) -> int | None:
        """Return when `meet_deadline` is due, in boot nanoseconds."""
        return self.device.next_deadline()

    def meet_deadline(self) -> None:
        """Do what is due, if anything is."""
        now = self.clock.now()
        due_ns = self.next_deadline()
        if due_ns is not None and due_ns <= now.boot_ns:
            self.simulation.activity += 1
            self.device.on_deadline(now)

    def flood(self, count: int = LOAD_AND_SHARE) -> None:
        """Let so many initiations come that only know our public key, each from an address that
        was quiet until now.

        As many as there are make load, and leave nothing of what all strangers may send.
        """
        keys = HandshakeKeys.of(self.public_key)
        for number in itertools.islice(self._flooders, count):
            message = b"\x01\0\0\0" + self.simulation.random.randbytes(112)
            datagram = message + mac(keys.mac1, message) + bytes(16)
            source = Endpoint(f"203.0.{number >> 8}.{number & 255}", 9)
            self.hear(datagram, source)

    def hear(self, datagram: bytes, source: Endpoint) -> None:
        """Let a handshake message come, as from a socket."""
        assert isinstance(self.dataplane, PortableDataPlane)
        self.dataplane._reception.receive(datagram, source, self.simulation.clock.boot_ns())

    def step(self) -> bool:
        """Run one wake-up of everything; return whether anything happened."""
        before = self.simulation.activity
        self.dataplane.receive_from_tun()
        for sock in self.sockets:
            self.dataplane.receive_from_socket(sock)
        now = self.clock.now()
        lookups, self._unanswered_lookups = self._unanswered_lookups, []
        for public_key, name, port in lookups:
            self.device.resolved(public_key, name, port, self.names.get(name, ()), now)
        events = self.dataplane.drain_events()
        for event in events:
            assert not isinstance(event, TunClosed | OffloadOff)
            self.device.on_event(event, now)
        messages = self.dataplane.take_handshakes(16)
        for message in messages:
            self.device.receive_handshake(message, now)
        packets = self.tun.take()
        self.received += packets
        return bool(lookups or events or messages or packets) or self.simulation.activity != before


class Simulation:
    """Hosts that can reach one another; `fate` decides about each datagram, as MemoryNetwork's."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.began_ns = self.clock.boot_ns()
        self.network = self.make_network()
        self.hosts: list[Host] = []
        self.log: list[Sent] = []
        self.activity = 0
        self.fate: Callable[[Sent], tuple[int, ...]] = lambda _sent: (0,)

    def make_network(self) -> MemoryNetwork:
        """Return the network of all hosts, which tells `_record` of every datagram."""
        return MemoryNetwork(self.clock, self._record)

    def host(self, name: str, address: str, tunnel_ip: str) -> Host:
        host = Host(self, name, address, tunnel_ip)
        self.hosts.append(host)
        return host

    def _record(self, transit: Transit) -> tuple[int, ...]:
        sender = next(h for h in self.hosts if transit.source.host in h.host.addresses)
        datagram = transit.datagram
        sent = Sent(self.now_ns, sender.name, datagram[0], len(datagram), transit)
        self.log.append(sent)
        self.activity += 1
        return self.fate(sent)

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the simulation began."""
        return self.clock.boot_ns() - self.began_ns

    def sent(self, *kinds: int, by: Host | None = None, since_ns: int = 0) -> list[Sent]:
        return [
            sent
            for sent in self.log
            if sent.kind in kinds
            and sent.at_ns >= since_ns
            and (by is None or sent.sender == by.name)
        ]

    def sent_between(self, one: Host, other: Host, *kinds: int) -> list[Sent]:
        """What two hosts have sent to one another, of any kind or these."""
        hosts = {one.home.host, other.home.host}
        return [
            sent
            for sent in self.log
            if (not kinds or sent.kind in kinds)
            and {sent.transit.source.host, sent.transit.destination.host} == hosts
        ]

    def settle(self) -> None:
        """Let everything happen that can happen now."""
        for _ in range(100_000):
            self.network.deliver()
            if not any(host.step() for host in self.hosts):
                return
        raise AssertionError("the simulation never comes to rest")

    def next_deadline(self) -> int | None:
        deadlines = [self.network.next_deadline()]
        deadlines += [host.next_deadline() for host in self.hosts]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def run(self, duration_ns: int) -> None:
        """Let time pass, stopping exactly at every deadline on the way."""
        self.settle()
        end_ns = self.clock.boot_ns() + duration_ns
        while (deadline_ns := self.next_deadline()) is not None and deadline_ns <= end_ns:
            self.clock.advance(max(deadline_ns - self.clock.boot_ns(), 0))
            for host in self.hosts:
                host.meet_deadline()
            self.settle()
        self.clock.advance(end_ns - self.clock.boot_ns())


def ip_packet(source: str, destination: str, payload: bytes) -> bytes:
    """Return an IPv4 packet without a checksum (nobody here looks at it)."""
    header = struct.pack(
        ">BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(payload),
        0,
        0,
        64,
        17,
        0,
        ipaddress.ip_address(source).packed,
        ipaddress.ip_address(destination).packed,
    )
    return header + payload


def acquaintances(seed: int = 1) -> tuple[Simulation, Host, Host]:
    """Return two hosts, the second of which does not know where the first is."""
    simulation = Simulation(seed)
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.add_peer(bob)
    bob.add_peer(alice, endpoint=False)
    return simulation, alice, bob


def pair(seed: int = 1, **change: Any) -> tuple[Simulation, Host, Host]:
    """Return two hosts that know each other's endpoint; `change` applies to both peers."""
    simulation = Simulation(seed)
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.add_peer(bob, **change)
    bob.add_peer(alice, **change)
    return simulation, alice, bob
