"""What both directions of the portable engine share: peers, sessions by index, routes, events.

No input or output here, except that a waiting event makes the wake-up descriptor readable.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from wgd.addresses import Endpoint
from wgd.clock import Clock
from wgd.constants import MAX_STAGED_PACKETS
from wgd.dataplane.allowed_ips import AllowedIps
from wgd.dataplane.interface import BecameActive, Fault, NeedsHandshake, PeerId, Report
from wgd.dataplane.keypairs import KeypairSlots, Session
from wgd.dataplane.wakeup import Wakeup
from wgd.diagnosis import FailureReason

MAX_CACHED_ROUTES: Final = 4096
"""Addresses whose owner is remembered; then start anew, which is cheaper than ordering them."""


@dataclass(slots=True)
class Drops:
    """How many packets and datagrams were dropped, by reason."""

    # out of the TUN
    malformed_packet: int = 0
    no_route: int = 0
    staged_full: int = 0
    no_endpoint: int = 0
    no_socket: int = 0
    send_failed: int = 0
    # out of a socket
    receive_failed: int = 0
    malformed_datagram: int = 0
    wrong_mac1: int = 0
    repeated_handshake: int = 0
    under_load: int = 0
    handshake_queue_full: int = 0
    unknown_index: int = 0
    expired_keypair: int = 0
    not_authentic: int = 0
    replayed: int = 0
    malformed_inner_packet: int = 0
    wrong_source: int = 0
    congested: int = 0
    """Marked by a router, but its sender would not understand (RFC 6040)."""
    # either way
    tun_failed: int = 0


class PeerState:
    """What an engine knows of one peer. Stamps and counters are those of the interface."""

    __slots__ = (
        "check_armed",
        "endpoint",
        "faults",
        "first_data_received_unanswered_ns",
        "first_data_sent_unanswered_ns",
        "handshake_reported",
        "id",
        "initiation_index",
        "keypairs",
        "last_received_ns",
        "last_sent_ns",
        "may_batch",
        "received_bytes",
        "received_packets",
        "refused",
        "sent_bytes",
        "sent_packets",
        "staged",
    )

    def __init__(self, peer: PeerId) -> None:
        self.id = peer
        self.endpoint: Endpoint | None = None
        self.initiation_index: int | None = None
        self.keypairs = KeypairSlots()
        self.staged: deque[bytes] = deque(maxlen=MAX_STAGED_PACKETS)
        self.may_batch = True
        """Whether several datagrams at once (UDP GSO) may be tried on the path to the peer."""
        self.refused = False
        """Whether packets are refused as long as there is no endpoint."""
        self.handshake_reported = False
        self.check_armed = False
        self.last_sent_ns = 0
        self.last_received_ns = 0
        self.first_data_sent_unanswered_ns = 0
        self.first_data_received_unanswered_ns = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self.sent_packets = 0
        self.received_packets = 0
        self.faults: dict[FailureReason, Fault] = {}

    def roam(self, source: Endpoint) -> None:
        """An authenticated message came from `source`: answers go there."""
        if source is self.endpoint:
            return
        if self.endpoint is None or self.endpoint[:3] != source[:3]:
            self.may_batch = True  # another path may do what the last one could not
        self.endpoint = source


class EngineState:
    """The tables of the engine, and the events it has not told the control plane yet."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.peers: dict[PeerId, PeerState] = {}
        self.sessions: dict[int, tuple[PeerState, Session]] = {}
        """By receiver index."""
        self.open_initiations: dict[int, PeerState] = {}
        """By the index of an initiation that was sent last to a peer and not answered."""
        self.allowed_ips: AllowedIps[PeerState] = AllowedIps()
        self.drops = Drops()
        self.events: list[Report] = []
        self.wakeup = Wakeup()
        self._routes: dict[bytes, PeerState | None] = {}

    # -- routes ------------------------------------------------------------------------------------

    def route(self, address: bytes) -> PeerState | None:
        """Return the peer with the longest prefix that holds `address` (4 or 16 bytes)."""
        try:
            return self._routes[address]
        except KeyError:
            if len(self._routes) >= MAX_CACHED_ROUTES:
                self._routes.clear()
            peer = self._routes[address] = self.allowed_ips.lookup(address)
            return peer

    def routes_changed(self) -> None:
        """Forget the remembered routes: allowed IPs were changed."""
        self._routes.clear()

    # -- sessions ----------------------------------------------------------------------------------

    def forget_sessions(self, indices: tuple[int, ...]) -> tuple[int, ...]:
        """Open nothing more for these receiver indices; return them."""
        for index in indices:
            del self.sessions[index]
        return indices

    def initiation_sent(self, peer: PeerState, index: int) -> None:
        """The peer was sent an initiation, which alone it may answer from now on."""
        self.forget_initiation(peer)
        peer.initiation_index = index
        self.open_initiations[index] = peer

    def forget_initiation(self, peer: PeerState) -> None:
        """No answer to the peer's last initiation is waited for any more."""
        index, peer.initiation_index = peer.initiation_index, None
        if index is not None and self.open_initiations.get(index) is peer:
            del self.open_initiations[index]

    # -- events ------------------------------------------------------------------------------------

    def emit(self, event: Report) -> None:
        """Queue an event; each is reported once until control acts, so that they stay few."""
        self.events.append(event)
        self.wakeup.set()

    def needs_handshake(self, peer: PeerState) -> None:
        """Report that the peer needs a handshake, unless that was reported already."""
        if not peer.handshake_reported:
            peer.handshake_reported = True
            self.emit(NeedsHandshake(peer.id))

    def became_active(self, peer: PeerState) -> None:
        """Report that a first-data stamp is set, unless a check of the peer is armed already."""
        if not peer.check_armed:
            peer.check_armed = True
            self.emit(BecameActive(peer.id))

    # -- faults ------------------------------------------------------------------------------------

    def note_fault(
        self, peer: PeerState, reason: FailureReason, *, count: int = 1, errno: int = 0
    ) -> None:
        """Something went wrong with `count` packets of the peer."""
        known = peer.faults.get(reason)
        if known is not None:
            count += known.count
        peer.faults[reason] = Fault(reason, count, self.clock.boot_ns(), errno)

    # -- stamps ------------------------------------------------------------------------------------

    def stamp_sent(self, peer: PeerState, now_ns: int, *, is_data: bool) -> None:
        """An authenticated packet was sent to the peer (or was meant to be)."""
        peer.last_sent_ns = now_ns
        peer.first_data_received_unanswered_ns = 0
        if is_data and not peer.first_data_sent_unanswered_ns:
            peer.first_data_sent_unanswered_ns = now_ns
            self.became_active(peer)

    def stamp_received(self, peer: PeerState, now_ns: int, *, is_data: bool) -> None:
        """An authenticated packet was received from the peer."""
        peer.last_received_ns = now_ns
        peer.first_data_sent_unanswered_ns = 0
        if is_data and not peer.first_data_received_unanswered_ns:
            peer.first_data_received_unanswered_ns = now_ns
            self.became_active(peer)
