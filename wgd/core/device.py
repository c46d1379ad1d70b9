"""One WireGuard interface, sans-IO: the peers, who owns which index and prefix, and when to act.

A device is driven by a few calls, each with the present `Instant`:

  receive_handshake   a message the data plane let through (right length, type and MAC1)
  on_event            what the data plane reports
  configure           a whole UAPI change, or `configure_in_slices`;   state: the snapshot for `get`
  set_link_up         the interface went up or down;   sockets_replaced: on another port
  on_deadline         when `next_deadline` has come: exactly one timer is ever needed

No call takes long, however many peers there are, but `configure` and the reading of a whole state:
what concerns all peers is told to them at the deadlines, see `wgd.core.news`.

What leaves the device leaves through the `DataPlane` it was given. Nothing here reads a clock,
opens a socket or draws its own randomness.
"""

import base64
import errno
import itertools
import logging
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import replace
from typing import Final

from wgd.addresses import Endpoint, Prefix
from wgd.clock import Instant
from wgd.configuration import NO_KEY, DeviceChange, DeviceState, PeerChange
from wgd.constants import MAX_PEERS, REJECT_AFTER_TIME_NS, SUSPEND_ENDS_SESSIONS_AFTER_NS
from wgd.core import news
from wgd.core.device_status import PeerStates, PeerStatuses, describe
from wgd.core.endpoints import parse_host
from wgd.core.handshake_counts import HandshakeCounts
from wgd.core.index_table import IndexTable
from wgd.core.locator import LookUp
from wgd.core.news import News
from wgd.core.peer import Peer
from wgd.core.reception import Reception
from wgd.core.schedule import Schedule
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
from wgd.diagnosis import FailureReason
from wgd.errors import ConfigurationError
from wgd.noise.cookie import HandshakeKeys
from wgd.noise.handshake import KeyLog, StaticIdentity
from wgd.noise.primitives import clamp
from wgd.status import DeviceStatus

logger = logging.getLogger(__name__)

PEERS_PER_DEADLINE: Final = 64
"""How many peers act before other work has its turn: some 20 ms if each sends an initiation."""

PEERS_PER_TELLING: Final = 512
"""How many peers are told of a change before other work has its turn: some 5 ms."""

STEPS_PER_SLICE: Final = 2048
STEPS_PER_PEER: Final = 8
"""How much of a change is applied in one slice, some 10 ms: an allowed IP is one step, a peer with
all else that is said of it is eight."""

Slices = Generator[None, Instant, None]
"""Work that goes on when it is sent the present time, and stops after each slice."""


class Device:
    """The protocol state of one interface.

    `random` returns that many random bytes; `look_up` finds the addresses of a peer's host;
    `key_log` is told the keys of every handshake.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        random: Callable[[int], bytes],
        *,
        look_up: LookUp = lambda _public_key, _host, _port: None,
        key_log: KeyLog | None = None,
    ) -> None:
        self._dataplane = dataplane
        self._look_up = look_up
        self._key_log = key_log
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
        self._schedule = Schedule()
        self._news = News()
        self._suspended_since_ns = 0
        """What was sent before this (boot time) was sent before the last suspend, at the latest."""
        self._heard_since_ns: int | None = None
        """Who was heard from since then (boot time) is told that we are awake, until all know."""
        self._counts = HandshakeCounts()
        self._reception = Reception(
            self._peers, self._indices, counts=self._counts, catch_up=self._catch_up
        )

    # -- configuration -----------------------------------------------------------------------------

    def check(self, change: DeviceChange) -> None:
        """Raise ConfigurationError if `change` could not be applied whole; changes nothing."""
        for peer in change.peers:
            if peer.endpoint_host is not None:
                parse_host(peer.endpoint_host)
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
        """Apply `change` at once, and in all else as `configure_in_slices` does."""
        slices = self.configure_in_slices(change, now)
        next(slices, None)
        finish(slices, now)

    def configure_in_slices(self, change: DeviceChange, now: Instant) -> Slices:
        """Apply `change` in the kernel's order: device values, replace_peers, key, then each peer.

        A slice is `STEPS_PER_SLICE` steps. Between two of them anything may be called that changes
        no peer's configuration; whoever reads the state sees what has been applied so far.
        The first slice raises ConfigurationError, with nothing applied, if there would be too many
        peers. The caller has bound the port and set the mark that `change` names.
        """
        self.check(change)
        if change.fwmark is not None:
            self._fwmark = change.fwmark
        if change.listen_port is not None:
            self._listen_port = change.listen_port
        pace = _Pace(now)
        if change.replace_peers:
            for peer in list(self._peers.values()):
                yield from self._remove_peer(peer, pace)
        if change.private_key is not None:
            yield from self._set_private_key(change.private_key, pace)
        for peer_change in change.peers:
            yield from self._configure_peer(peer_change, pace)

    def settings(self) -> DeviceState:
        """Return the device's own values, without its peers."""
        return DeviceState(
            private_key=self._private_key, listen_port=self._listen_port, fwmark=self._fwmark
        )

    def has_peers(self, public_keys: Collection[bytes]) -> bool:
        """Whether each of these keys is a peer's."""
        return all(public_key in self._peers for public_key in public_keys)

    def state(self) -> DeviceState:
        """Return a consistent snapshot, peers in the order they were added."""
        return replace(self.settings(), peers=tuple(peer.state() for peer in self._peers.values()))

    def peer_states(self) -> PeerStates:
        """Return the peers of `state`, each made when it is looked at. No peer may be removed
        before `complete` is called or the last was looked at.
        """
        return PeerStates(tuple(self._peers.values()))

    def status(self, now: Instant) -> DeviceStatus:
        """Return all that the device knows, without any secret; what it does not is left blank.

        The status of a peer is made when it is looked at, which takes some 20 µs: `now` is the time
        of all of it.
        """
        identity = self._identity
        load = self._dataplane.load()
        return replace(
            describe(self._dataplane, self._reception.failures, len(self._peers)),
            now_ns=now.wall_ns,
            public_key="" if identity is None else base64.b64encode(identity.public_key).decode(),
            listen_port=self._listen_port,
            fwmark=self._fwmark,
            is_up=self._is_up,
            is_under_load=load.is_under_load,
            handshakes=self._counts.handshakes(cookies_sent=load.cookies_sent),
            latency=self._counts.latency(),
            peers=PeerStatuses(
                tuple(self._peers.values()), self._peers_by_id, self._dataplane, now
            ),
        )

    def peer_ids(self) -> tuple[PeerId, ...]:
        """Return the peers as the data plane knows them."""
        return tuple(self._peers_by_id)

    def endpoint(self, peer: PeerId) -> Endpoint | None:
        """Return where a peer is; None also for one that is there no more."""
        return self._dataplane.endpoint(peer) if peer in self._peers_by_id else None

    def set_link_up(self, is_up: bool, now: Instant) -> None:
        """Start all peers (the sockets are attached), or stop them and forget their sessions."""
        if is_up == self._is_up:
            return
        self._is_up = self._reception.is_open = is_up
        self._tell(self._peers_by_id, news.LINK, now)

    def sockets_replaced(self, now: Instant) -> None:
        """The data plane has other sockets, on another port."""
        self._tell(self._peers_by_id, news.PORT, now)

    def wake(self, public_keys: Iterable[bytes], now: Instant) -> None:
        """Have sessions with these peers, those that are there and up: send them a keepalive."""
        for public_key in public_keys:
            if (peer := self._peers.get(public_key)) is not None:
                self._catch_up(peer, now)
                peer.wake()

    def resolved(
        self, public_key: bytes, host: str, port: int, found: Sequence[Endpoint], now: Instant
    ) -> None:
        """Take the answer to a lookup: what the host stands for, the best first; nothing if it was
        not found. One that nobody waits for any more is nothing.
        """
        peer = self._peers.get(public_key)
        if peer is not None and peer.locator.waits_for(host, port):
            self._catch_up(peer, now)
            peer.initiator.resolved(found, now)
            self._reschedule(peer)

    def network_changed(self, moved: Collection[PeerId], now: Instant) -> None:
        """The network under the tunnel has changed; peers that `moved` are reached another way."""
        if moved:
            self._news.note((peer for peer in moved if peer in self._peers_by_id), news.MOVED)
        self._tell(self._peers_by_id, news.NETWORK, now)

    def greet(self, now: Instant) -> None:
        """We are reached another way: tell whoever was heard from lately."""
        self._tell(self._peers_by_id, news.GREETING, now)

    def woke_up(self, now: Instant, asleep_ns: int) -> None:
        """The system was suspended for so long (0: only its clock was set).

        After a suspend all sessions begin anew, because keys may have been read meanwhile.
        """
        if self._heard_since_ns is None or not self._news:
            # Else some do not know of the last time yet.
            self._heard_since_ns = now.boot_ns - asleep_ns - REJECT_AFTER_TIME_NS
        what = news.AWAKE
        if asleep_ns >= SUSPEND_ENDS_SESSIONS_AFTER_NS:
            what |= news.SUSPENDED
            self._suspended_since_ns = now.boot_ns - asleep_ns
        self._tell(self._peers_by_id, what, now)

    def cloned(self, now: Instant) -> None:
        """There may be a copy of this device: never send under its keys again."""
        self._expire_keypairs()
        self._tell(self._peers_by_id, news.CLONED, now)

    def _expire_keypairs(self) -> None:
        """Send nothing more under any present keypair: that cannot wait, as news do."""
        for peer_id in self._peers_by_id:
            self._dataplane.expire_keypairs(peer_id)

    # -- news for all peers ------------------------------------------------------------------------

    def _tell(self, peers: Iterable[PeerId], what: int, now: Instant) -> None:
        """Tell peers the news: the first of them now, the others at the next deadlines."""
        self._news.note(peers, what)
        self._tell_some(now)

    def _tell_some(self, now: Instant) -> None:
        for peer_id in self._news.next_peers(PEERS_PER_TELLING):
            self._catch_up(self._peers_by_id[peer_id], now)
        if not self._news:
            self._heard_since_ns = None

    def tell_all(self, now: Instant) -> None:
        """Tell all peers what they have not been told yet: the end has come."""
        while self._news:
            self._tell_some(now)

    def _catch_up(self, peer: Peer, now: Instant) -> None:
        """Tell `peer` what it has not been told yet, before anything else is done with it."""
        untold = self._news.take(peer.id)
        if untold == news.NETWORK and not peer.initiator.waits_for_network:
            return
        if not untold:
            return
        if untold & news.LINK:
            # It may have gone down and up again since: then nothing outlives that.
            if peer.is_running:
                peer.stop()
            if self._is_up:
                peer.start(now)
        if untold & news.IDENTITY:
            peer.set_identity(self._identity)
        if untold & news.CLONED:
            peer.cloned()
        if untold & news.SUSPENDED:
            peer.end_sessions(self._suspended_since_ns)
        if untold & news.PORT:
            peer.rebound(now)
        if untold & news.AWAKE and self._heard_since_ns is not None:
            peer.woke_up(now, self._heard_since_ns)
        is_moved = bool(untold & news.MOVED)
        if is_moved or (untold & news.NETWORK and peer.initiator.waits_for_network):
            peer.network_changed(now, is_moved=is_moved)
        if untold & news.GREETING:
            peer.greet(now)
        self._reschedule(peer)

    # -- pieces of a change ------------------------------------------------------------------------

    def _set_private_key(self, private_key: bytes, pace: "_Pace") -> Slices:
        if private_key != NO_KEY:
            private_key = clamp(private_key)
        if private_key == self._private_key:
            return
        identity = StaticIdentity(private_key) if private_key != NO_KEY else None
        if identity is not None and (own := self._peers.get(identity.public_key)) is not None:
            yield from self._remove_peer(own, pace)  # first: from here on all is done at once
        self._private_key = private_key
        self._identity = identity
        self._reception.set_identity(identity)
        keys = None if identity is None else HandshakeKeys.of(identity.public_key)
        self._dataplane.set_handshake_keys(keys)
        self._expire_keypairs()
        self._tell(self._peers_by_id, news.IDENTITY, pace.now)

    def _configure_peer(self, change: PeerChange, pace: "_Pace") -> Slices:
        if self._identity is not None and change.public_key == self._identity.public_key:
            # One file may be shared by all nodes; but it may also be a key copied by mistake.
            self._reception.failures.note(FailureReason.OWN_KEY_AS_PEER, pace.now.wall_ns)
            return
        peer = self._peers.get(change.public_key)
        if change.remove:
            if peer is not None:
                yield from self._remove_peer(peer, pace)
            return
        if peer is None:
            if change.update_only:
                return
            peer = self._add_peer(change.public_key, pace.now)
        else:
            self._catch_up(peer, pace.now)
        if change.preshared_key is not None:
            peer.set_preshared_key(change.preshared_key)
        if change.endpoint is not None or change.endpoint_host is not None:
            peer.set_endpoint(change.endpoint, change.endpoint_host)
        if change.replace_allowed_ips:
            yield from self._take_all_prefixes(peer, pace)
        for allowed_ip in change.allowed_ips:
            if allowed_ip.remove:
                self._take_prefix(peer, allowed_ip.prefix)
            else:
                self._give_prefix(peer, allowed_ip.prefix)
            if pace.is_slice_done(1):
                pace.now = yield
        if change.persistent_keepalive_seconds is not None:
            peer.set_persistent_keepalive(change.persistent_keepalive_seconds, pace.now)
        peer.configured()
        self._reschedule(peer)
        if pace.is_slice_done(STEPS_PER_PEER):
            pace.now = yield

    def _add_peer(self, public_key: bytes, now: Instant) -> Peer:
        peer = Peer(
            PeerId(next(self._peer_ids)),
            public_key,
            dataplane=self._dataplane,
            indices=self._indices,
            counts=self._counts,
            random=self._random,
            look_up=self._look_up,
            key_log=self._key_log,
        )
        self._dataplane.add_peer(peer.id)
        self._peers[public_key] = peer
        self._peers_by_id[peer.id] = peer
        peer.set_identity(self._identity)
        if self._is_up:
            peer.start(now)
        return peer

    def _remove_peer(self, peer: Peer, pace: "_Pace") -> Slices:
        yield from self._take_all_prefixes(peer, pace)
        peer.stop()
        self._dataplane.remove_peer(peer.id)
        del self._peers[peer.public_key]
        del self._peers_by_id[peer.id]
        self._schedule.forget(peer.id)
        self._news.take(peer.id)
        peer.close()
        if pace.is_slice_done(STEPS_PER_PEER):
            pace.now = yield

    def _take_all_prefixes(self, peer: Peer, pace: "_Pace") -> Slices:
        for prefix in list(peer.allowed_ips):
            self._take_prefix(peer, prefix)
            if pace.is_slice_done(1):
                pace.now = yield

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

    def receive_handshake(self, message: HandshakeMessage, now: Instant) -> None:
        """Handle a message that the data plane let in. Never raises."""
        if (peer := self._reception.receive(message, now)) is not None:
            self._reschedule(peer)

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
        self._catch_up(peer, now)
        match event:
            case NeedsHandshake():
                peer.needs_handshake(now)
            case KeypairConfirmed():
                peer.keypair_confirmed(event, now)
            case BecameActive():
                peer.became_active(now)
        self._reschedule(peer)

    def next_deadline(self) -> int | None:
        """Return when `on_deadline` must be called next, in boot nanoseconds; None for never.

        It is past while there is news to tell.
        """
        return 0 if self._news else self._schedule.next_deadline()

    def on_deadline(self, now: Instant) -> None:
        """Let peers that are due act: at most `PEERS_PER_DEADLINE`, and `next_deadline` is past if
        there are more, so that thousands at once leave room for other work.
        """
        if self._news:
            self._tell_some(now)
        for peer_id in self._schedule.take_due(now.boot_ns, PEERS_PER_DEADLINE):
            peer = self._peers_by_id[peer_id]
            self._catch_up(peer, now)
            peer.on_deadline(now)
            self._reschedule(peer)

    def _reschedule(self, peer: Peer) -> None:
        self._schedule.look_by(peer.id, peer.next_deadline())


def finish(slices: Slices, now: Instant) -> None:
    """Do at once what is left of work that was begun."""
    try:
        while True:
            slices.send(now)
    except StopIteration:
        pass


class _Pace:
    """Counts the steps of a slice. `now` is the present time, given anew with each slice."""

    __slots__ = ("_steps", "now")

    def __init__(self, now: Instant) -> None:
        self.now = now
        self._steps = 0

    def is_slice_done(self, steps: int) -> bool:
        """Count steps that were done; whether it is time to let others do something."""
        self._steps += steps
        if self._steps < STEPS_PER_SLICE:
            return False
        self._steps = 0
        return True
