"""From UDP to the TUN, one datagram at a time, in one buffer that is allocated once:

1 a socket receives into `Inbound.buffer`, and what the kernel has put together is cut apart;
2 what is not a transport message goes to the gate of handshake messages (`portable_reception`);
3 the receiver index finds the session, which must not be too old;
4 the packet is opened in place, and only if it is authentic its counter goes to the replay window;
5 the peer roams to where the datagram came from; stamps and counters are set;
6 a first packet under the next keypair makes it the current one; what was staged is sent, and a
  keypair close to its end asks for its renewal;
7 the inner packet is cut to its own length, its source must be routed to this very peer;
8 a mark that a router has set on the outer packet goes to the inner one (see `ecn`);
9 it is written to the TUN. An empty packet (a keepalive) ends before 7.
"""

import errno
from collections.abc import Callable
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag

from wgd.addresses import Endpoint
from wgd.constants import (
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME_NS,
    REKEY_ON_RECEIVE_AFTER_TIME_NS,
)
from wgd.dataplane import ecn
from wgd.dataplane.interface import KeypairConfirmed, Tun
from wgd.dataplane.keypairs import Session
from wgd.dataplane.portable_outbound import Outbound
from wgd.dataplane.portable_reception import Reception
from wgd.dataplane.portable_state import EngineState, PeerState
from wgd.diagnosis import FailureReason
from wgd.noise.messages import TRANSPORT_HEADER, TRANSPORT_MIN_SIZE, MessageType

MAX_DATAGRAM_SIZE: Final = 65_535
"""More than UDP can carry without jumbograms: what is longer is not ours."""

CLOSED_ERRNOS: Final = frozenset(
    {errno.EBADF, errno.ENODEV, errno.ENXIO, getattr(errno, "EBADFD", errno.EBADF)}
)
"""What a TUN device raises that is not there any more."""

_HEADER_SIZE: Final = TRANSPORT_HEADER.size
_TAG_SIZE: Final = 16
_TRANSPORT: Final = int(MessageType.TRANSPORT)
_NONCE: Final = Struct("<4xQ")
_IPV4: Final = Struct("!BxH8x4s")  # version and header length, total length, source
_IPV6: Final = Struct("!B3xH2x16s")  # version, payload length, source


class Inbound:
    """Opens, checks and delivers. Nothing in here raises because of what a datagram holds.

    `on_tun_closed` is called with the error when the TUN turns out to be gone.
    """

    def __init__(
        self,
        state: EngineState,
        outbound: Outbound,
        reception: Reception,
        tun: Tun,
        on_tun_closed: Callable[[OSError], None],
    ) -> None:
        self._state = state
        self._outbound = outbound
        self._reception = reception
        self._tun = tun
        self._on_tun_closed = on_tun_closed
        self.buffer = memoryview(bytearray(MAX_DATAGRAM_SIZE))
        """Where what a socket receives belongs."""

    def receive(
        self, length: int, size: int, source: Endpoint, traffic_class: int, now_ns: int
    ) -> int:
        """Handle the `length` bytes in `buffer`: datagrams of `size` bytes, the last may be
        shorter, all with this type of service or traffic class. Return how many there were.
        """
        if length <= size:
            self._receive(self.buffer[:length], source, traffic_class, now_ns)
            return 1
        for offset in range(0, length, size):
            datagram = self.buffer[offset : min(offset + size, length)]
            self._receive(datagram, source, traffic_class, now_ns)
        return -(-length // size)

    def _receive(
        self, datagram: memoryview, source: Endpoint, traffic_class: int, now_ns: int
    ) -> None:
        state = self._state
        length = len(datagram)
        if length < TRANSPORT_MIN_SIZE:
            state.drops.malformed_datagram += 1
            return
        kind, index, counter = TRANSPORT_HEADER.unpack_from(datagram)
        if kind != _TRANSPORT:
            self._reception.receive(bytes(datagram), source, now_ns)
            return
        found = state.sessions.get(index)
        if found is None:
            state.drops.unknown_index += 1
            return
        peer, session = found
        if now_ns - session.created_ns >= REJECT_AFTER_TIME_NS or counter >= REJECT_AFTER_MESSAGES:
            state.drops.expired_keypair += 1
            state.note_fault(peer, FailureReason.SESSION_EXPIRED)
            return
        packet = datagram[_HEADER_SIZE:-_TAG_SIZE]
        try:
            session.opener.decrypt_into(_NONCE.pack(counter), datagram[_HEADER_SIZE:], None, packet)
        except InvalidTag:
            state.drops.not_authentic += 1
            state.note_fault(peer, FailureReason.PACKET_NOT_AUTHENTIC)
            return
        if not session.replay.accept(counter):
            state.drops.replayed += 1
            state.note_fault(peer, FailureReason.PACKET_REPLAYED)
            return

        peer.roam(source)
        peer.received_bytes += length
        peer.received_packets += 1
        is_data = length > TRANSPORT_MIN_SIZE
        state.stamp_received(peer, now_ns, is_data=is_data)
        if session is peer.keypairs.next:
            self._confirm(peer, session, now_ns)
        self._renew_in_time(peer, now_ns)
        if is_data:
            self._deliver(peer, packet, traffic_class)

    def _confirm(self, peer: PeerState, session: Session, now_ns: int) -> None:
        freed = self._state.forget_sessions(peer.keypairs.confirm())
        peer.handshake_reported = False
        self._state.emit(KeypairConfirmed(peer.id, session.local_index, freed))
        self._outbound.send_staged(peer, now_ns)

    def _renew_in_time(self, peer: PeerState, now_ns: int) -> None:
        current = peer.keypairs.current
        if (
            current is not None
            and current.is_initiator
            and now_ns - current.created_ns >= REKEY_ON_RECEIVE_AFTER_TIME_NS
            and not current.rekey_reported
        ):
            current.rekey_reported = True
            self._state.needs_handshake(peer)

    def _deliver(self, peer: PeerState, packet: memoryview, traffic_class: int) -> None:
        """Write an opened packet to the TUN, without its padding, if its source is the peer's.

        `traffic_class` is that of the outer packet.
        """
        available = len(packet)
        version = packet[0] >> 4
        if version == 4 and available >= 20:
            first, length, source = _IPV4.unpack_from(packet)
            is_honest = 20 <= (first & 15) * 4 <= length <= available
        elif version == 6 and available >= 40:
            first, length, source = _IPV6.unpack_from(packet)
            length += 40
            is_honest = length <= available
        else:
            is_honest = False
        if not is_honest:
            self._state.drops.malformed_inner_packet += 1
            self._state.note_fault(peer, FailureReason.MALFORMED_PACKET)
        elif self._state.route(source) is not peer:
            self._state.drops.wrong_source += 1
            self._state.note_fault(peer, FailureReason.NOT_AN_ALLOWED_IP)
        elif traffic_class and not ecn.decapsulate(traffic_class, packet):
            self._state.drops.congested += 1
        else:
            self._write(packet[:length])

    def _write(self, packet: memoryview) -> None:
        try:
            self._tun.write(packet)
        except OSError as error:
            self._state.drops.tun_failed += 1
            if error.errno in CLOSED_ERRNOS:
                self._on_tun_closed(error)
