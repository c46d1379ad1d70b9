"""What must hold at every moment of a simulated day, whatever happens in it."""

import struct
from collections.abc import Iterable

from tests.unit.simulation import INITIATION, MILLISECOND, SECOND, TRANSPORT, Host
from wgd.dataplane.interface import PeerId
from wgd.dataplane.portable import PortableDataPlane

REKEY_TIMEOUT_NS = 5 * SECOND
"""No initiation to the same peer sooner than this (paper, section 6.1)."""

MAX_STAGED, MAX_SESSIONS_PER_PEER = 128, 3
MAX_QUEUED_HANDSHAKES, MAX_QUEUED_COOKIES = 1024, 64

_BEGINNING = 28
"""An IPv4 header and the serial number of the packet."""

_PROTOCOL, _ICMP, _QUOTED = 9, 1, 28
"""RFC 792: where the protocol is, which one it is, and where the packet is that it is about."""

_TRANSPORT_HEADER = struct.Struct("<4xIQ")
_INITIATION_HEADER = struct.Struct("<4xI")


class Watch:
    """Sees every packet put into a tunnel, every datagram sent, every packet that comes out.

    Raises AssertionError at the first that breaks a rule.
    """

    def __init__(self) -> None:
        self.outstanding: dict[bytes, tuple[bytes, str, str]] = {}
        """Packets that were sent and have not arrived, by how they begin, which is like no other
        does; with the names of sender and receiver."""
        self.delivered = 0
        self.refused: set[bytes] = set()
        """Packets that their sender was told have nowhere to go."""
        self.sent = 0
        self._keys: set[bytes] = set()
        self._nonces: set[tuple[str, int, int]] = set()
        self._initiated_ns: dict[tuple[str, PeerId], int] = {}

    # -- packets -----------------------------------------------------------------------------------

    def packet_sent(self, sender: str, receiver: str, packet: bytes) -> None:
        """A packet, unlike any before, is put into the sender's tunnel."""
        assert packet[:_BEGINNING] not in self.outstanding
        self.outstanding[packet[:_BEGINNING]] = packet, sender, receiver
        self.sent += 1

    def has_come(self, packet: bytes) -> bool:
        """Whether a packet that was sent has arrived."""
        return packet[:_BEGINNING] not in self.outstanding and packet not in self.refused

    def packet_came(self, receiver: str, packet: bytes) -> None:
        """A packet has come out of a tunnel: unchanged, once, and where it belongs.

        Or the tunnel says that it has nowhere to go: then its sender is told, and nobody gets it.
        """
        is_refused = packet[_PROTOCOL] == _ICMP
        known = self.outstanding.pop(
            packet[_QUOTED:][:_BEGINNING] if is_refused else packet[:_BEGINNING], None
        )
        assert known is not None, f"{receiver} got a packet twice, or changed: {packet.hex()}"
        sent, sender, meant_for = known
        if is_refused:
            assert sender == receiver, f"{receiver} is told what became of a packet of {sender}"
            assert sent.startswith(packet[_QUOTED:])
            self.refused.add(sent)
            return
        assert packet == sent, f"{receiver} got a packet changed: {packet.hex()}"
        assert meant_for == receiver, f"{receiver} got what was for {meant_for}"
        self.delivered += 1

    # -- datagrams ---------------------------------------------------------------------------------

    def keypair_installed(self, send_key: bytes) -> None:
        """A session begins: its counter begins at 0, so its key must be new."""
        assert send_key not in self._keys, "a key is used again"
        self._keys.add(send_key)

    def datagram_sent(self, sender: Host, datagram: bytes, now_ns: int) -> None:
        """A datagram leaves."""
        kind = datagram[0]
        if kind == TRANSPORT:
            index, counter = _TRANSPORT_HEADER.unpack_from(datagram)
            nonce = sender.name, index, counter
            assert nonce not in self._nonces, f"{sender.name} uses a nonce again"
            self._nonces.add(nonce)
        elif kind == INITIATION:
            (index,) = _INITIATION_HEADER.unpack_from(datagram)
            peer = sender.device._indices.owner(index)
            assert peer is not None, f"{sender.name} initiates with an index that nobody owns"
            last_ns = self._initiated_ns.get((sender.name, peer.id))
            if last_ns is not None:
                gap_ns = now_ns - last_ns
                assert gap_ns >= REKEY_TIMEOUT_NS, (
                    f"{sender.name} initiates again after {gap_ns // MILLISECOND} ms"
                )
            self._initiated_ns[sender.name, peer.id] = now_ns

    def may_initiate_at_once(self, host: Host) -> None:
        """A host begins anew (link, key or port have changed): it need not wait, once."""
        for key in [key for key in self._initiated_ns if key[0] == host.name]:
            del self._initiated_ns[key]


def check_tables(hosts: Iterable[Host]) -> None:
    """Nothing leaks and nothing grows: indices, schedule, staged packets, queues."""
    for host in hosts:
        device, dataplane = host.device, host.dataplane
        peers = device._peers.values()
        pending = {peer._handshake_index for peer in peers} - {None}
        owned = set(device._indices._owners)
        assert pending <= owned
        assert len(owned) <= (MAX_SESSIONS_PER_PEER + 1) * len(peers)
        if isinstance(dataplane, PortableDataPlane):  # the other keeps its sessions to itself
            sessions = set(dataplane._state.sessions)
            assert sessions | pending == owned, f"{host.name} leaks receiver indices"
            assert not sessions & pending
            waited_for = set(dataplane._state.open_initiations)
            assert pending <= waited_for, f"{host.name} would not take an answer"
            assert len(waited_for) <= len(peers)
            assert set(dataplane._state.peers) == set(device.peer_ids())
        assert len(device._schedule._heap) <= 4 * len(peers) + 65
        assert all(dataplane.staged_packets(peer.id) <= MAX_STAGED for peer in peers)
        assert dataplane.queue_depths().handshakes <= MAX_QUEUED_HANDSHAKES + MAX_QUEUED_COOKIES
        assert len(device.status(host.clock.now()).peers) == len(peers)


def check_idle(hosts: Iterable[Host]) -> None:
    """Nothing is left to do, to send or to remember."""
    for host in hosts:
        assert host.next_deadline() is None, f"{host.name} waits for something"
        assert len(host.device._indices) == 0, f"{host.name} keeps receiver indices"
        for peer in host.device.peer_ids():
            assert host.dataplane.drop_keypairs(peer) == (), f"{host.name} keeps keys"
