"""From the TUN to UDP, one packet at a time, in one buffer that is allocated once:

    [ header 16 ][ packet, read here ... ][ padding ][ tag 16 ]

1 the TUN reads a packet into its place in the buffer (`Outbound.packet`);
2 its destination finds the peer, by the longest prefix of the allowed IPs;
3 the peer's current keypair is taken; without a usable one the packet is staged and a handshake
  asked for;
4 the packet is padded to a multiple of 16 within the MTU, and sealed in place;
5 the datagram leaves through the socket of the endpoint's family, from the pinned source;
6 stamps and counters are set, and a keypair that has grown old asks for its renewal.
"""

import errno
from collections.abc import Sequence
from typing import Final

from wgd.addresses import Endpoint
from wgd.constants import (
    DEFAULT_MTU,
    MAX_MTU,
    PADDING_MULTIPLE,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME_NS,
)
from wgd.dataplane.interface import DatagramSocket
from wgd.dataplane.keypairs import Session
from wgd.dataplane.portable_state import EngineState, PeerState
from wgd.noise.messages import TRANSPORT_HEADER, MessageType

MAX_PACKET_SIZE: Final = 65_535

_HEADER_SIZE: Final = TRANSPORT_HEADER.size
_TAG_SIZE: Final = 16
_TRANSPORT: Final = int(MessageType.TRANSPORT)
_ZEROS: Final = bytes(PADDING_MULTIPLE)
_NONCE_PREFIX: Final = bytes(4)

# Errors that another source address cannot mend: the datagram is too long, or the queue is full.
_NOT_THE_SOURCE: Final = (errno.EMSGSIZE, errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)


class Outbound:
    """Routes, stages, seals and sends. Nothing in here raises because of a packet or a network."""

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self._mtu = DEFAULT_MTU
        self._sockets: dict[bool, DatagramSocket] = {}
        self._buffer = bytearray(_HEADER_SIZE + MAX_PACKET_SIZE + PADDING_MULTIPLE + _TAG_SIZE)
        self._view = memoryview(self._buffer)
        self.packet = self._view[_HEADER_SIZE : _HEADER_SIZE + MAX_PACKET_SIZE]
        """Where a packet from the TUN belongs."""

    def use_sockets(self, sockets: Sequence[DatagramSocket]) -> None:
        """Send through these, at most one per family."""
        self._sockets = {socket.is_ipv6: socket for socket in sockets}

    def set_mtu(self, mtu: int) -> None:
        """Never pad beyond `mtu` bytes."""
        self._mtu = min(max(mtu, 1), MAX_MTU)

    # -- packets -----------------------------------------------------------------------------------

    def forward(self, length: int, now_ns: int) -> None:
        """Send the packet of `length` bytes that was read into `packet` to whom it belongs."""
        view = self._view
        version = view[16] >> 4
        if version == 4 and length >= 20:
            destination = bytes(view[32:36])
        elif version == 6 and length >= 40:
            destination = bytes(view[40:56])
        else:
            self._state.drops.malformed_packet += 1
            return
        peer = self._state.route(destination)
        if peer is None:
            self._state.drops.no_route += 1
            return
        session = peer.keypairs.current
        if session is not None and session.can_send(now_ns):
            self._seal_and_send(peer, session, length, now_ns)
        else:
            self._stage(peer, bytes(self.packet[:length]))
            self._state.needs_handshake(peer)

    def send_keepalive(self, peer: PeerState, now_ns: int) -> None:
        """Send what is staged, or an empty packet."""
        peer.first_data_received_unanswered_ns = 0
        if not peer.staged:
            self._stage(peer, b"")
        self.send_staged(peer, now_ns)

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
                return
            packet = peer.staged.popleft()
            self.packet[: len(packet)] = packet
            self._seal_and_send(peer, session, len(packet), now_ns)

    def _seal_and_send(self, peer: PeerState, session: Session, length: int, now_ns: int) -> None:
        view = self._view
        counter = session.send_counter
        session.send_counter = counter + 1

        # A packet beyond the MTU will be cut into units of it: only the last of them is padded.
        mtu = self._mtu
        last_unit = length if length <= mtu else length % mtu
        padding = min(-last_unit % PADDING_MULTIPLE, mtu - last_unit)
        end = _HEADER_SIZE + length
        if padding:
            view[end : end + padding] = _ZEROS[:padding]
            end += padding

        TRANSPORT_HEADER.pack_into(self._buffer, 0, _TRANSPORT, session.remote_index, counter)
        session.sealer.encrypt_into(
            _NONCE_PREFIX + counter.to_bytes(8, "little"),
            view[_HEADER_SIZE:end],
            None,
            view[_HEADER_SIZE : end + _TAG_SIZE],
        )
        end += _TAG_SIZE
        # Stamped even if sending fails: then the silence leads to a handshake on a new path.
        self._state.stamp_sent(peer, now_ns, is_data=length > 0)
        if self.transmit(peer, view[:end]):
            peer.sent_bytes += end
        if session.send_counter > REKEY_AFTER_MESSAGES or (
            session.is_initiator and now_ns - session.created_ns >= REKEY_AFTER_TIME_NS
        ):
            self._state.needs_handshake(peer)

    # -- datagrams ---------------------------------------------------------------------------------

    def transmit(self, peer: PeerState, datagram: bytes | memoryview) -> bool:
        """Send a datagram to the peer's endpoint; False if it has none or it failed."""
        endpoint = peer.endpoint
        if endpoint is None:
            self._state.drops.no_endpoint += 1
            return False
        reached = self.send_to(endpoint, datagram)
        if reached is None:
            return False
        if reached is not endpoint:
            peer.endpoint = reached
        return True

    def send_to(self, endpoint: Endpoint, datagram: bytes | memoryview) -> Endpoint | None:
        """Send a datagram; return the endpoint that worked, or None.

        A pinned source that is no longer ours is left out if that helps.
        """
        socket = self._sockets.get(endpoint.is_ipv6)
        if socket is None:
            self._state.drops.no_socket += 1
            return None
        try:
            socket.send(datagram, endpoint)
        except OSError as error:
            if endpoint.source is not None and error.errno not in _NOT_THE_SOURCE:
                return self.send_to(endpoint._replace(source=None), datagram)
            self._state.drops.send_failed += 1
            return None
        return endpoint
