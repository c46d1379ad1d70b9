"""What must hold at every moment of a simulated day, whatever happens in it."""

import struct
from collections.abc import Iterable

from tests.unit.simulation import INITIATION, MILLISECOND, SECOND, TRANSPORT, Host
from wgd.dataplane.interface import PeerId

REKEY_TIMEOUT_NS = 5 * SECOND
"""No initiation to the same peer sooner than this (paper, section 6.1)."""

MAX_STAGED, MAX_QUEUED_HANDSHAKES, MAX_SESSIONS_PER_PEER = 128, 1024, 3

_TRANSPORT_HEADER = struct.Struct("<4xIQ")
_ICMP, _HOST_UNREACHABLE = 1, b"\3\1"
_INITIATION_HEADER = struct.Struct("<4xI")


class Watch:
    """Sees every packet put into a tunnel, every datagram sent, every packet that comes out.

    Raises AssertionError at the first that breaks a rule.
    """

    def __init__(self) -> None:
        self.outstanding: dict[bytes, tuple[str, str]] = {}
        """Packets that were sent and have not arrived, with the names of sender and receiver."""
        self.delivered = 0
        self.sent = 0
        self._keys: set[bytes] = set()
        self._nonces: set[tuple[str, int, int]] = set()
        self._initiated_ns: dict[tuple[str, PeerId], int] = {}

    # -- packets -----------------------------------------------------------------------------------

    def packet_sent(self, sender: str, receiver: str, packet: bytes) -> None:
        """A packet, unlike any before, is put into the sender's tunnel."""
        assert packet not in self.outstanding
        self.outstanding[packet] = sender, receiver
        self.sent += 1

    def packet_came(self, receiver: str, packet: bytes) -> None:
        """A packet has come out of a tunnel: unchanged, once, and where it belongs.

        Or it tells its sender that there is no way to its destination: then it never arrives.
        """
        if packet[20:22] == _HOST_UNREACHABLE and packet[9] == _ICMP:
            # Of a long packet it quotes the beginning, which holds its number.
            quoted = [sent for sent in self.outstanding if sent.startswith(packet[28:])]
            assert len(quoted) == 1, f"{receiver} is told of a packet that was not refused"
            sender, _ = self.outstanding.pop(quoted[0])
            assert sender == receiver, f"{receiver} is told of a packet of {sender}"
            return
        meant_for = self.outstanding.pop(packet, None)
        assert meant_for is not None, f"{receiver} got a packet twice, or changed: {packet.hex()}"
        assert meant_for[1] == receiver, f"{receiver} got what was for {meant_for[1]}"
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
        device, state = host.device, host.dataplane._state
        peers = device._peers.values()
        pending = {peer._handshake_index for peer in peers} - {None}
        owned = set(device._indices._owners)
        assert set(state.sessions) | pending == owned, f"{host.name} leaks receiver indices"
        assert not set(state.sessions) & pending
        assert len(owned) <= (MAX_SESSIONS_PER_PEER + 1) * len(peers)
        assert len(device._schedule._heap) <= 4 * len(peers) + 65
        assert all(len(peer.staged) <= MAX_STAGED for peer in state.peers.values())
        assert pending <= set(state.open_initiations), f"{host.name} would not take an answer"
        assert len(state.open_initiations) <= len(peers)
        assert host.dataplane.queue_depths().handshakes <= MAX_QUEUED_HANDSHAKES
        assert set(state.peers) == set(device.peer_ids())
        assert len(device.status(host.clock.now()).peers) == len(peers)


def check_idle(hosts: Iterable[Host]) -> None:
    """Nothing is left to do, to send or to remember."""
    for host in hosts:
        assert host.next_deadline() is None, f"{host.name} waits for something"
        assert not host.dataplane._state.sessions, f"{host.name} keeps keys"
        assert len(host.device._indices) == 0
