"""From the TUN to UDP, one packet at a time, in one arena that is allocated once:

    [ header 16 ][ packet ][ padding ][ tag 16 ][ header 16 ][ packet, read here ... ]
      `------- a sealed datagram, waiting -----'

1 the TUN reads a packet into its place in the arena (`Outbound.packet`);
2 its destination finds the peer, by the longest prefix of the allowed IPs; if there is none, or
  nobody knows where it is, the sender is told (see `unreachable`);
3 the peer's current keypair is taken; without a usable one the packet is staged and a handshake
  asked for;
4 the packet is padded to a multiple of 16 within the MTU, and sealed in place;
5 stamps are set, and a keypair that has grown old asks for its renewal;
6 the datagram waits, so that neighbours of one size and one ECN field for one peer leave in one
  system call (UDP GSO), through the socket of the endpoint's family, from the pinned source.
  `flush` ends the wait: at the latest when the TUN is empty.
"""

import errno
import os
from collections.abc import Sequence
from struct import Struct
from typing import Final

from wgd.addresses import Endpoint
from wgd.constants import (
    DEFAULT_MTU,
    MAX_DATAGRAM_SIZE,
    MAX_MTU,
    PADDING_MULTIPLE,
    REKEY_AFTER_MESSAGES,
)
from wgd.dataplane import ecn
from wgd.dataplane.interface import DatagramSocket, OffloadOff
from wgd.dataplane.keypairs import Session
from wgd.dataplane.portable_state import EngineState, PeerState
from wgd.dataplane.unreachable import Refusals
from wgd.diagnosis import FailureReason
from wgd.noise.messages import TRANSPORT_HEADER, MessageType

MAX_PACKET_SIZE: Final = 65_535

_HEADER_SIZE: Final = TRANSPORT_HEADER.size
_TAG_SIZE: Final = 16
_MAX_SEALED_SIZE: Final = _HEADER_SIZE + MAX_PACKET_SIZE + PADDING_MULTIPLE + _TAG_SIZE
# A full batch, one that it is not compatible with, and the packet that turns out not to be, either.
_ARENA_SIZE: Final = 2 * MAX_DATAGRAM_SIZE + 2 * _MAX_SEALED_SIZE
_TRANSPORT: Final = int(MessageType.TRANSPORT)
_ZEROS: Final = bytes(PADDING_MULTIPLE)
_NONCE: Final = Struct("<4xQ")
_IPV4_DESTINATION: Final = Struct("16x4s")
_IPV6_DESTINATION: Final = Struct("24x16s")

# Errors that another source address cannot mend: the datagram is too long, or the queue is full.
_NOT_THE_SOURCE: Final = (errno.EMSGSIZE, errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)
# Errors that say that the kernel, or the path, cannot do it with several datagrams at once.
_NO_BATCHES: Final = (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP)
_QUEUE_FULL: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)


class Outbound:
    """Routes, stages, seals and sends. What a packet or the network does raises nothing, except in
    `send_to`.
    """

    def __init__(self, state: EngineState, refusals: Refusals) -> None:
        self._state = state
        self._refusals = refusals
        self._mtu = DEFAULT_MTU
        self._sockets: dict[bool, DatagramSocket] = {}
        self._arena = memoryview(bytearray(_ARENA_SIZE))
        self._position = 0
        """Where in the arena the next datagram will be."""
        self.packet = self._arena[_HEADER_SIZE : _HEADER_SIZE + MAX_PACKET_SIZE]
        """Where the next packet from the TUN belongs."""
        # What waits: datagrams of one size (the last may be shorter) and one traffic class, from
        # `start` to `position`.
        self._batch_peer: PeerState | None = None
        self._batch_start = 0
        self._batch_size = 0
        self._batch_room = 0
        self._batch_traffic_class = 0

    def use_sockets(self, sockets: Sequence[DatagramSocket]) -> None:
        """Send through these, at most one per family."""
        self._sockets = {socket.is_ipv6: socket for socket in sockets}

    def set_mtu(self, mtu: int) -> None:
        """Never pad beyond `mtu` bytes."""
        self._mtu = min(max(mtu, 1), MAX_MTU)

    # -- packets -----------------------------------------------------------------------------------

    def forward(self, length: int, now_ns: int) -> None:
        """Send the packet of `length` bytes that was read into `packet` to whom it belongs.

        It may wait for `flush`.
        """
        packet = self.packet
        version = packet[0] >> 4
        if version == 4 and length >= 20:
            (destination,) = _IPV4_DESTINATION.unpack_from(packet)
        elif version == 6 and length >= 40:
            (destination,) = _IPV6_DESTINATION.unpack_from(packet)
        else:
            self._state.drops.malformed_packet += 1
            return
        peer = self._state.route(destination)
        if peer is None:
            self._state.drops.no_route += 1
            self._refusals.refuse(bytes(packet[:length]), now_ns)
            return
        if peer.refused and peer.endpoint is None:
            self._state.drops.no_endpoint += 1
            self._state.note_fault(peer, FailureReason.NO_ENDPOINT)
            self._refusals.refuse(bytes(packet[:length]), now_ns)
            return
        session = peer.keypairs.current
        if session is not None and session.can_send(now_ns):
            self._seal(peer, session, length, now_ns)
        else:
            self._stage(peer, bytes(packet[:length]))
            self._state.needs_handshake(peer)

    def send_keepalive(self, peer: PeerState, now_ns: int) -> None:
        """Send what is staged, or an empty packet."""
        peer.first_data_received_unanswered_ns = 0
        if not peer.staged:
            self._stage(peer, b"")
        self.send_staged(peer, now_ns)

    def refuse_staged(self, peer: PeerState, now_ns: int) -> None:
        """Tell the senders of what is staged that it has nowhere to go, and throw it away."""
        self._state.drops.no_endpoint += len(peer.staged)
        for packet in peer.staged:
            self._refusals.refuse(packet, now_ns)
        peer.staged.clear()

    def _stage(self, peer: PeerState, packet: bytes) -> None:
        if len(peer.staged) == peer.staged.maxlen:
            self._state.drops.staged_full += 1
        peer.staged.append(packet)

    def send_staged(self, peer: PeerState, now_ns: int) -> None:
        """Send what is staged, oldest first; ask for a handshake if something has to stay."""
        while peer.staged:
            session = peer.keypairs.current
            if session is None or not session.can_send(now_ns):
                self._state.needs_handshake(peer)
                break
            packet = peer.staged.popleft()
            self.packet[: len(packet)] = packet
            self._seal(peer, session, len(packet), now_ns)
        self.flush()

    def _seal(self, peer: PeerState, session: Session, length: int, now_ns: int) -> None:
        arena = self._arena
        start = self._position
        counter = session.send_counter
        session.send_counter = counter + 1

        # A packet beyond the MTU will be cut into units of it: only the last of them is padded.
        mtu = self._mtu
        last_unit = length if length <= mtu else length % mtu
        padded = (last_unit + PADDING_MULTIPLE - 1) & -PADDING_MULTIPLE
        padding = min(mtu, padded) - last_unit
        packet = start + _HEADER_SIZE
        end = packet + length
        # The two bits and no more: the DSCP would tell a stranger what is inside.
        traffic_class = ecn.of(arena[packet:end])
        if padding:
            arena[end : end + padding] = _ZEROS[:padding]
            end += padding

        TRANSPORT_HEADER.pack_into(arena, start, _TRANSPORT, session.remote_index, counter)
        session.sealer.encrypt_into(
            _NONCE.pack(counter), arena[packet:end], None, arena[packet : end + _TAG_SIZE]
        )
        # Stamped even if sending fails: then the silence leads to a handshake on a new path.
        self._state.stamp_sent(peer, now_ns, is_data=length > 0)
        if now_ns >= session.renew_after_ns or counter >= REKEY_AFTER_MESSAGES:
            self._state.needs_handshake(peer)
        self._append(peer, start, end + _TAG_SIZE, traffic_class)

    # -- datagrams ---------------------------------------------------------------------------------

    def _append(self, peer: PeerState, start: int, end: int, traffic_class: int) -> None:
        """Let the datagram that was sealed between `start` and `end` wait with its like."""
        size = end - start
        if (
            peer is not self._batch_peer
            or traffic_class != self._batch_traffic_class
            or size > self._batch_size
            or size > self._batch_room
        ):
            self._send_batch(start)
            self._batch_peer = peer
            self._batch_start = start
            self._batch_size = size
            self._batch_traffic_class = traffic_class
            self._batch_room = min(MAX_DATAGRAM_SIZE, size * self._max_segments(peer))
        self._batch_room -= size
        self._move_to(end)
        is_last = size < self._batch_size or size > self._batch_room
        if is_last or end > _ARENA_SIZE - _MAX_SEALED_SIZE:
            self.flush()

    def _max_segments(self, peer: PeerState) -> int:
        if peer.endpoint is None or not peer.may_batch:
            return 1
        socket = self._sockets.get(peer.endpoint.is_ipv6)
        return 1 if socket is None else socket.max_segments

    def _move_to(self, position: int) -> None:
        self._position = position
        packet = position + _HEADER_SIZE
        self.packet = self._arena[packet : packet + MAX_PACKET_SIZE]

    def flush(self) -> None:
        """Send all that waits."""
        if self._batch_peer is not None:
            self._send_batch(self._position)
            self._batch_peer = None
            self._batch_size = 0
            self._move_to(0)

    def _send_batch(self, end: int) -> None:
        """Send the datagrams that wait before `end`, together if that can be."""
        peer = self._batch_peer
        if peer is None:
            return
        datagrams = self._arena[self._batch_start : end]
        size = self._batch_size
        error: OSError | None = None
        if len(datagrams) > size:
            try:
                self._transmit_segments(peer, datagrams, size)
            except OSError as failure:
                error = failure  # they are tried one by one
            else:
                return
        endpoint = peer.endpoint
        all_sent = True
        for offset in range(0, len(datagrams), size):
            datagram = datagrams[offset : offset + size]
            if self.transmit(peer, datagram, self._batch_traffic_class):
                peer.sent_bytes += len(datagram)
                peer.sent_packets += 1
            else:
                all_sent = False
        if error is None or error.errno not in _NO_BATCHES:
            return
        if all_sent and peer.endpoint is endpoint and peer.may_batch:
            # One by one they go, from the same source: it is the path that cannot do it.
            peer.may_batch = False
            self._state.emit(OffloadOff("udp_gso", f"{error.strerror} to {endpoint}"))

    def _transmit_segments(self, peer: PeerState, datagrams: memoryview, size: int) -> None:
        """Send datagrams of one size at once; a full queue drops them.

        Raises OSError when they must be tried one by one.
        """
        endpoint = peer.endpoint
        socket = None if endpoint is None else self._sockets.get(endpoint.is_ipv6)
        if socket is None or endpoint is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        count = -(-len(datagrams) // size)
        try:
            socket.send_segments(datagrams, size, endpoint, self._batch_traffic_class)
        except OSError as error:
            if error.errno not in _QUEUE_FULL:
                raise
            self._state.drops.send_failed += count
            self._send_failed(peer, error, count)
        else:
            peer.sent_bytes += len(datagrams)
            peer.sent_packets += count

    def transmit(self, peer: PeerState, datagram: bytes | memoryview, traffic_class: int) -> bool:
        """Send a datagram to the peer's endpoint; False if it has none or it failed."""
        endpoint = peer.endpoint
        if endpoint is None:
            self._state.drops.no_endpoint += 1
            return False
        try:
            reached = self.send_to(endpoint, datagram, traffic_class)
        except OSError as error:
            self._send_failed(peer, error)
            return False
        if reached is not endpoint:
            peer.endpoint = reached
        return True

    def _send_failed(self, peer: PeerState, error: OSError, count: int = 1) -> None:
        self._state.note_fault(peer, FailureReason.SEND_FAILED, count=count, errno=error.errno or 0)

    def send_to(
        self, endpoint: Endpoint, datagram: bytes | memoryview, traffic_class: int
    ) -> Endpoint:
        """Send a datagram; return the endpoint that worked.

        A pinned source that is no longer ours is left out if that helps. Raises OSError, with the
        drop counted: EAFNOSUPPORT without a socket of the endpoint's family.
        """
        socket = self._sockets.get(endpoint.is_ipv6)
        if socket is None:
            self._state.drops.no_socket += 1
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        try:
            socket.send(datagram, endpoint, traffic_class)
        except OSError as error:
            if endpoint.source is not None and error.errno not in _NOT_THE_SOURCE:
                return self.send_to(endpoint._replace(source=None), datagram, traffic_class)
            self._state.drops.send_failed += 1
            raise
        return endpoint
