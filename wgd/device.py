"""One WireGuard interface, sans-IO: the peers, who owns which index and prefix, and when to act.

A device is driven by a few calls, each with the present `Instant`:

  receive_handshake   a message the data plane let through (right length, type and MAC1)
  on_event            what the data plane reports
  configure           a whole UAPI change;   state: the snapshot for `get`
  set_link_up         the interface went up or down;   sockets_replaced: on another port
  on_deadline         when `next_deadline` has come: exactly one timer is ever needed

What leaves the device leaves through the `DataPlane` it was given. Nothing here reads a clock,
opens a socket or draws its own randomness.
"""

import errno
import heapq
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from wgd.addresses import Prefix
from wgd.clock import Instant
from wgd.configuration import NO_KEY, DeviceChange, DeviceState, PeerChange
from wgd.constants import MAX_PEERS, UNDER_LOAD_QUEUE_DEPTH, UNDER_LOAD_STICKY_NS
from wgd.dataplane.interface import (
    BecameActive,
    DataPlane,
    Event,
    HandshakeMessage,
    KeypairConfirmed,
    NeedsHandshake,
    PeerId,
    TunClosed,
)
from wgd.errors import ConfigurationError, HandshakeError
from wgd.index_table import IndexTable
from wgd.noise.cookie import CookieChecker, mac1_key
from wgd.noise.handshake import StaticIdentity, identify_initiator
from wgd.noise.messages import CookieReply, Initiation, MessageType, Response, message_type
from wgd.noise.primitives import clamp
from wgd.peer import Peer
from wgd.rate_limiter import RateLimiter

logger = logging.getLogger(__name__)

PEERS_PER_DEADLINE: Final = 64
"""How many peers act before other work has its turn: some 20 ms if each sends an initiation."""


class Device:
    """The protocol state of one interface. `random` returns that many random bytes."""

    def __init__(self, dataplane: DataPlane, random: Callable[[int], bytes]) -> None:
        self._dataplane = dataplane
        self._random = random
        self._private_key = NO_KEY
        self._identity: StaticIdentity | None = None
        self._listen_port = 0
        self._fwmark = 0
        self._is_up = False
        self._peers: dict[bytes, Peer] = {}
        self._peers_by_id: dict[PeerId, Peer] = {}
        self._peer_ids = itertools.count(1)
        self._prefix_owners: dict[Prefix, Peer] = {}
        self._indices: IndexTable[Peer] = IndexTable(random)
        self._cookie_checker: CookieChecker | None = None
        self._rate_limiter = RateLimiter()
        self._under_load_until_ns = 0
        # (deadline, peer): the entry of a peer counts only if `_scheduled` has the same deadline.
        self._schedule: list[tuple[int, PeerId]] = []
        self._scheduled: dict[PeerId, int] = {}

    # -- configuration -----------------------------------------------------------------------------

    def check(self, change: DeviceChange) -> None:
        """Raise ConfigurationError if `change` could not be applied whole; changes nothing."""
        # A cheap bound first: only a configuration near the limit is worth simulating.
        if len(self._peers) + len(change.peers) <= MAX_PEERS:
            return
        keys = set() if change.replace_peers else set(self._peers)
        for peer in change.peers:
            if peer.remove:
                keys.discard(peer.public_key)
            elif not peer.update_only:
                keys.add(peer.public_key)
            if len(keys) > MAX_PEERS:
                raise ConfigurationError(
                    errno.EINVAL,
                    f"{len(keys)} peers are too many: a device has at most {MAX_PEERS}",
                )

    def configure(self, change: DeviceChange, now: Instant) -> None:
        """Apply `change` in the kernel's order: device values, replace_peers, key, then each peer.

        Raises ConfigurationError, with nothing applied, if it asks for too many peers. The caller
        has bound the port and set the mark that `change` names.
        """
        self.check(change)
        if change.fwmark is not None:
            self._fwmark = change.fwmark
        if change.listen_port is not None:
            self._listen_port = change.listen_port
        if change.replace_peers:
            for peer in list(self._peers.values()):
                self._remove_peer(peer)
        if change.private_key is not None:
            self._set_private_key(change.private_key)
        for peer_change in change.peers:
            self._configure_peer(peer_change, now)

    def settings(self) -> DeviceState:
        """Return the device's own values, without its peers."""
        return DeviceState(
            private_key=self._private_key, listen_port=self._listen_port, fwmark=self._fwmark
        )

    def state(self) -> DeviceState:
        """Return a consistent snapshot, peers in the order they were added."""
        return replace(self.settings(), peers=tuple(peer.state() for peer in self._peers.values()))

    def peer_ids(self) -> tuple[PeerId, ...]:
        """Return the peers as the data plane knows them."""
        return tuple(self._peers_by_id)

    def set_link_up(self, is_up: bool, now: Instant) -> None:
        """Start all peers (the sockets are attached), or stop them and forget their sessions."""
        if is_up == self._is_up:
            return
        self._is_up = is_up
        for peer in self._peers.values():
            if is_up:
                peer.start(now)
            else:
                peer.stop()
            self._reschedule(peer)

    def sockets_replaced(self, now: Instant) -> None:
        """The data plane has other sockets, on another port."""
        for peer in self._peers.values():
            peer.rebound(now)
            self._reschedule(peer)

    def _set_private_key(self, private_key: bytes) -> None:
        if private_key != NO_KEY:
            private_key = clamp(private_key)
        if private_key == self._private_key:
            return
        self._private_key = private_key
        self._identity = identity = StaticIdentity(private_key) if private_key != NO_KEY else None
        if identity is None:
            self._cookie_checker = None
            self._dataplane.set_mac1_key(None)
        else:
            self._cookie_checker = CookieChecker(identity.public_key)
            self._dataplane.set_mac1_key(mac1_key(identity.public_key))
            if own := self._peers.get(identity.public_key):
                self._remove_peer(own)
        for peer in self._peers.values():
            peer.set_identity(identity)
            self._reschedule(peer)

    def _configure_peer(self, change: PeerChange, now: Instant) -> None:
        if self._identity is not None and change.public_key == self._identity.public_key:
            return  # one file may be shared by all nodes: the own key is skipped
        peer = self._peers.get(change.public_key)
        if change.remove:
            if peer is not None:
                self._remove_peer(peer)
            return
        if peer is None:
            if change.update_only:
                return
            peer = self._add_peer(change.public_key, now)
        if change.preshared_key is not None:
            peer.set_preshared_key(change.preshared_key)
        if change.endpoint is not None:
            self._dataplane.set_endpoint(peer.id, change.endpoint)
        if change.replace_allowed_ips:
            for prefix in list(peer.allowed_ips):
                self._take_prefix(peer, prefix)
        for allowed_ip in change.allowed_ips:
            if allowed_ip.remove:
                self._take_prefix(peer, allowed_ip.prefix)
            else:
                self._give_prefix(peer, allowed_ip.prefix)
        if change.persistent_keepalive_seconds is not None:
            peer.set_persistent_keepalive(change.persistent_keepalive_seconds, now)
        peer.configured()
        self._reschedule(peer)

    def _add_peer(self, public_key: bytes, now: Instant) -> Peer:
        peer = Peer(
            PeerId(next(self._peer_ids)),
            public_key,
            dataplane=self._dataplane,
            indices=self._indices,
            random=self._random,
        )
        self._dataplane.add_peer(peer.id)
        self._peers[public_key] = peer
        self._peers_by_id[peer.id] = peer
        peer.set_identity(self._identity)
        if self._is_up:
            peer.start(now)
        return peer

    def _remove_peer(self, peer: Peer) -> None:
        peer.stop()
        self._dataplane.remove_peer(peer.id)
        for prefix in peer.allowed_ips:
            del self._prefix_owners[prefix]
        del self._peers[peer.public_key]
        del self._peers_by_id[peer.id]
        self._scheduled.pop(peer.id, None)

    def _give_prefix(self, peer: Peer, prefix: Prefix) -> None:
        """Route `prefix` to `peer`; if another peer has it, it moves."""
        owner = self._prefix_owners.get(prefix)
        if owner is peer:
            return
        if owner is not None:
            del owner.allowed_ips[prefix]
        self._prefix_owners[prefix] = peer
        peer.allowed_ips[prefix] = None
        self._dataplane.add_allowed_ip(peer.id, prefix)

    def _take_prefix(self, peer: Peer, prefix: Prefix) -> None:
        """Take exactly `prefix` from `peer`, if it has it."""
        if prefix in peer.allowed_ips:
            del peer.allowed_ips[prefix]
            del self._prefix_owners[prefix]
            self._dataplane.remove_allowed_ip(peer.id, prefix)

    # -- handshakes --------------------------------------------------------------------------------

    def receive_handshake(self, message: HandshakeMessage, queued: int, now: Instant) -> None:
        """Handle a message with a right MAC1 while `queued` of its kind waited. Never raises."""
        if queued >= UNDER_LOAD_QUEUE_DEPTH:
            self._under_load_until_ns = now.boot_ns + UNDER_LOAD_STICKY_NS
        try:
            self._receive_handshake(message, now)
        except HandshakeError as error:
            logger.debug("event=handshake_refused source=%s reason=%s", message.source, error)

    def _receive_handshake(self, message: HandshakeMessage, now: Instant) -> None:
        if self._identity is None or not self._is_up:
            return
        parsed = _parse(message.datagram)
        if isinstance(parsed, CookieReply):
            self._owner(parsed.receiver_index).receive_cookie_reply(parsed, now)
            return
        if now.boot_ns < self._under_load_until_ns and not self._admit(parsed, message, now):
            return
        length = len(message.datagram)
        if isinstance(parsed, Initiation):
            initiation = identify_initiator(self._identity, parsed)
            known = self._peers.get(initiation.initiator)
            if known is None:
                raise HandshakeError("unknown key")
            peer = known
            peer.receive_initiation(initiation, length, message.source, now)
        else:
            peer = self._owner(parsed.receiver_index)
            peer.receive_response(parsed, length, message.source, now)
        self._reschedule(peer)

    def _owner(self, receiver_index: int) -> Peer:
        peer = self._indices.owner(receiver_index)
        if peer is None:
            raise HandshakeError("unknown receiver index")
        return peer

    def _admit(
        self, parsed: Initiation | Response, message: HandshakeMessage, now: Instant
    ) -> bool:
        """Under load: whether MAC2 proves the source address and its bucket has a token.

        Without a right MAC2 the sender is told how to make one.
        """
        assert self._cookie_checker is not None  # noqa: S101 - there is one for every identity
        source = message.source
        if self._cookie_checker.check_mac2(message.datagram, source, now.boot_ns):
            return self._rate_limiter.allow(source, now.boot_ns)
        reply = self._cookie_checker.create_reply(
            message.datagram, parsed.sender_index, source, now.boot_ns, self._random
        )
        self._dataplane.send_to(source, reply)
        return False

    # -- events and time ---------------------------------------------------------------------------

    def on_event(self, event: Event, now: Instant) -> None:
        """Act on what the data plane reported; an event of a peer already removed is nothing."""
        if isinstance(event, TunClosed):
            return  # the owner's business
        if isinstance(event, KeypairConfirmed):
            # Also those of a peer removed meanwhile: nobody else would free them.
            self._indices.free(event.freed_indices)
        peer = self._peers_by_id.get(event.peer)
        if peer is None:
            return
        match event:
            case NeedsHandshake():
                peer.needs_handshake(now)
            case KeypairConfirmed():
                peer.keypair_confirmed(event, now)
            case BecameActive():
                peer.became_active(now)
        self._reschedule(peer)

    def next_deadline(self) -> int | None:
        """Return when `on_deadline` must be called next, in boot nanoseconds; None for never."""
        while self._schedule:
            deadline_ns, peer_id = self._schedule[0]
            if self._scheduled.get(peer_id) == deadline_ns:
                return deadline_ns
            heapq.heappop(self._schedule)
        return None

    def on_deadline(self, now: Instant) -> None:
        """Let peers that are due act: at most `PEERS_PER_DEADLINE`, and `next_deadline` is past if
        there are more, so that thousands at once leave room for other work.
        """
        due: list[Peer] = []
        while (
            len(due) < PEERS_PER_DEADLINE
            and (deadline_ns := self.next_deadline()) is not None
            and deadline_ns <= now.boot_ns
        ):
            _, peer_id = heapq.heappop(self._schedule)
            del self._scheduled[peer_id]
            due.append(self._peers_by_id[peer_id])
        for peer in due:
            peer.on_deadline(now)
            self._reschedule(peer)

    def _reschedule(self, peer: Peer) -> None:
        """Make sure the peer is looked at no later than its next deadline.

        A deadline that moved away is left in place: looking early is cheap, and it is what turns
        ten thousand busy peers into ten thousand looks per ten seconds.
        """
        deadline_ns = peer.next_deadline()
        scheduled_ns = self._scheduled.get(peer.id)
        if deadline_ns is None or (scheduled_ns is not None and scheduled_ns <= deadline_ns):
            return
        self._scheduled[peer.id] = deadline_ns
        heapq.heappush(self._schedule, (deadline_ns, peer.id))
        if len(self._schedule) > 4 * len(self._scheduled) + 64:
            self._schedule = [(when_ns, who) for who, when_ns in self._scheduled.items()]
            heapq.heapify(self._schedule)


def _parse(datagram: bytes) -> Initiation | Response | CookieReply:
    """Parse any handshake message; raises HandshakeError for anything else."""
    match message_type(datagram):
        case MessageType.INITIATION:
            return Initiation.parse(datagram)
        case MessageType.RESPONSE:
            return Response.parse(datagram)
        case MessageType.COOKIE_REPLY:
            return CookieReply.parse(datagram)
        case _:
            raise HandshakeError("not a handshake message")
