"""One peer, sans-IO: its handshake, its timers, and what it asks of the data plane.

The flow of a session, initiator on the left:

  1 needs_handshake    initiation sent ........... receive_initiation: endpoint, response sent,
                       (retransmit timer armed)    keypair installed as "next"
  2 receive_response   keypair installed as        .
                       "current", staged packets   .
                       or a keepalive sent ....... keypair_confirmed: "next" becomes "current"

Timers are not armed one by one: `next_deadline` computes the earliest of `wgd.core.timers` from the
data plane's stamps, and `on_deadline` does whatever is due. The owner (`wgd.core.device`) calls it
then.
"""

import logging
from collections.abc import Callable

from wgd.addresses import Endpoint, Prefix
from wgd.clock import Instant
from wgd.configuration import PeerState
from wgd.constants import KEEPALIVE_TIMEOUT_NS, REJECT_AFTER_TIME_NS, REKEY_TIMEOUT_NS
from wgd.core import timers
from wgd.core.handshake_counts import HandshakeCounts
from wgd.core.index_table import IndexTable
from wgd.core.initiator import Initiator
from wgd.core.locator import Locator, LookUp, label
from wgd.dataplane.interface import DataPlane, KeypairConfirmed, PeerId
from wgd.diagnosis import FailureLog, FailureReason
from wgd.errors import HandshakeError
from wgd.noise.cookie import CookieGenerator
from wgd.noise.handshake import Handshake, IdentifiedInitiation, KeyLog, StaticIdentity
from wgd.noise.messages import CookieReply, Response

logger = logging.getLogger(__name__)


class Peer:
    """A peer of one device. `identity` is the device's own key, None while it has none.

    `random` returns that many random bytes; `indices` and `counts` are shared by all peers of the
    device; `look_up` finds the addresses of a host, `key_log` is told the keys of handshakes.
    """

    def __init__(
        self,
        peer_id: PeerId,
        public_key: bytes,
        *,
        dataplane: DataPlane,
        indices: "IndexTable[Peer]",
        counts: HandshakeCounts,
        random: Callable[[int], bytes],
        look_up: LookUp,
        key_log: KeyLog | None,
    ) -> None:
        self.id = peer_id
        self.public_key = public_key
        self.allowed_ips: dict[Prefix, None] = {}
        """In the order they were given."""
        self.persistent_keepalive_seconds = 0
        self.failures = FailureLog()
        """What the control plane has refused or waited for in vain."""
        self.locator = Locator(
            peer_id,
            public_key,
            dataplane=dataplane,
            failures=self.failures,
            look_up=look_up,
        )
        self.initiator = Initiator(
            self,
            self.locator,
            failures=self.failures,
            counts=counts,
            random=random,
        )
        self._dataplane = dataplane
        self._indices = indices
        self._counts = counts
        self._random = random
        self._handshake = Handshake(None, public_key, key_log=key_log)
        self._cookies = CookieGenerator(public_key)
        self._identity: StaticIdentity | None = None
        self._running = False

        self._handshake_index: int | None = None
        self._session_derived_ns: int | None = None
        self._look_at_ns: int | None = None
        """When to look at the stamps again, while the data plane reports no activity."""
        self._told_ns: int | None = None
        """When the peer was last told that the way to it has changed."""
        self._tell_at_ns: int | None = None
        """It changed again soon after: tell it then."""
        self._keepalive_enabled_ns = 0
        self._last_handshake_wall_ns = 0

    def __repr__(self) -> str:
        return label(self.public_key)

    # -- life --------------------------------------------------------------------------------------

    def start(self, now: Instant) -> None:
        """The link came up: whatever was staged, or a persistent keepalive, may go out."""
        self._running = True
        self._keepalive_enabled_ns = now.boot_ns
        if self.persistent_keepalive_seconds:
            self._dataplane.send_keepalive(self.id)
        # What was staged while the link was down has been reported, to no avail: report it again.
        self._dataplane.send_staged(self.id)

    def stop(self) -> None:
        """The link went down: forget every session and what was staged."""
        self._running = False
        self._dataplane.drop_staged(self.id)
        self._dataplane.clear_stamps(self.id)
        self._look_at_ns = self._told_ns = self._tell_at_ns = None
        self._erase_keys()
        self.initiator.reset()

    def close(self) -> None:
        """Be no peer any more: refer to nothing that refers to us, so that no cycle is left."""
        del self.initiator

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._running

    def wake(self) -> None:
        """Have a session: send a keepalive, which takes one, unless we are down or do so anyway."""
        if self._running and not self.persistent_keepalive_seconds:
            self._dataplane.send_keepalive(self.id)

    def set_identity(self, identity: StaticIdentity | None) -> None:
        """Our own static key changed: sessions made with the old one must be made anew."""
        self._identity = identity
        self._handshake.set_identity(identity)
        self._begin_anew()

    def cloned(self) -> None:
        """Somebody may have our keys: send nothing more under them, nor reuse an ephemeral one.

        What arrives under them may still be opened.
        """
        self._handshake.clear()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._free_handshake_index()
        self.initiator.reset()
        self._dataplane.expire_keypairs(self.id)
        if self._running:
            self._dataplane.send_staged(self.id)

    def end_sessions(self, before_ns: int) -> None:
        """Forget sessions and handshakes from before this (boot time); what is staged waits for a
        new one. What the first packet after a suspend has begun goes on.
        """
        if not self.initiator.has_sent_since(before_ns):
            self._handshake.clear()
            self._free_handshake_index()
            self.initiator.reset()
        if self._session_derived_ns is None or self._session_derived_ns <= before_ns:
            self._session_derived_ns = None
            self._indices.free(self._dataplane.drop_keypairs(self.id))
        if self._running:
            self._dataplane.send_staged(self.id)

    def rebound(self, now: Instant) -> None:
        """Our port has changed: the answer to an initiation that is out will not find us."""
        self.initiator.rebound(now)

    # -- configuration -----------------------------------------------------------------------------

    def set_preshared_key(self, key: bytes) -> None:
        """Mix `key` (32 bytes, zeros for none) into every handshake from the next one on."""
        self._handshake.preshared_key = key

    def set_persistent_keepalive(self, seconds: int, now: Instant) -> None:
        """Send an empty packet after `seconds` without traffic; 0 never. Switching on sends one."""
        switched_on = seconds and not self.persistent_keepalive_seconds
        self.persistent_keepalive_seconds = seconds
        if switched_on:
            self._keepalive_enabled_ns = now.boot_ns
            if self._running:
                self._dataplane.send_keepalive(self.id)

    def set_endpoint(self, endpoint: Endpoint | None, host: str | None) -> None:
        """Look for the peer at `endpoint` (None: where it is), and at what `host` stands for."""
        if endpoint is not None and self.locator.endpoint is None:
            self.initiator.endpoint_set()
        self.locator.configure(endpoint, host)

    def configured(self) -> None:
        """A configuration change of this peer is complete: what it was missing may be there now."""
        if self._running:
            self._dataplane.send_staged(self.id)

    def state(self) -> PeerState:
        """Return a snapshot for `get`."""
        counters = self._dataplane.counters(self.id)
        return PeerState(
            public_key=self.public_key,
            preshared_key=self._handshake.preshared_key,
            endpoint=self._dataplane.endpoint(self.id),
            last_handshake_ns=self._last_handshake_wall_ns,
            sent_bytes=counters.sent_bytes,
            received_bytes=counters.received_bytes,
            persistent_keepalive_seconds=self.persistent_keepalive_seconds,
            allowed_ips=tuple(self.allowed_ips),
        )

    # -- handshake ---------------------------------------------------------------------------------

    def needs_handshake(self, now: Instant) -> None:
        """The data plane has packets to send and no (fresh) keypair for them."""
        self.initiator.wanted(now)

    def may_initiate(self, now: Instant) -> bool:
        """Return whether there is a link to send on and a key to send with."""
        if self._running and self._identity is None:
            self.failures.note(FailureReason.NO_PRIVATE_KEY, now.wall_ns)
        return self._running and self._identity is not None

    def make_initiation(self, now: Instant) -> bytes | None:
        """Return a new initiation, None if the peer's public key is of low order: it never will."""
        self._free_handshake_index()
        index = self._indices.allocate(self)
        try:
            message = self._handshake.create_initiation(now, index, self._random)
        except HandshakeError as error:
            self._indices.free([index])
            self.failures.note(error.reason, now.wall_ns)
            logger.info("%r event=cannot_initiate reason=%s", self, error)
            return None
        self._handshake_index = index
        return self._cookies.add_macs(message, now.boot_ns)

    def given_up(self, now: Instant) -> None:
        """An attempt at a handshake was in vain: do not hold on to what was for it."""
        self._dataplane.drop_staged(self.id)
        if self._session_derived_ns is None and self._handshake_index is not None:
            self._session_derived_ns = now.boot_ns  # erase the attempt's keys in time, too

    def receive_initiation(
        self, initiation: IdentifiedInitiation, length: int, source: Endpoint, now: Instant
    ) -> None:
        """Answer an initiation whose static key is this peer's.

        Raises HandshakeError, with nothing changed, if it is forged, replayed or part of a flood.
        """
        self._handshake.consume_initiation(initiation, now.boot_ns)
        # Our own initiation, if one is out, is overtaken: its state is gone.
        self._free_handshake_index()
        self._dataplane.note_received(self.id, length, source)
        index = self._indices.allocate(self)
        message = self._handshake.create_response(index, self._random)
        keypair = self._handshake.derive_keypair(now.boot_ns)
        self._indices.free(self._dataplane.install_keypair(self.id, keypair))
        self._session_derived_ns = now.boot_ns
        self.initiator.responded(now)
        self._counts.accepted += 1
        logger.debug("%r event=response_sent endpoint=%s", self, source)
        self._dataplane.send_to_peer(self.id, self._cookies.add_macs(message, now.boot_ns))

    def receive_response(
        self, response: Response, length: int, source: Endpoint, now: Instant
    ) -> None:
        """Complete the handshake we initiated; raises HandshakeError if it is not the answer."""
        self._handshake.consume_response(response)
        keypair = self._handshake.derive_keypair(now.boot_ns)
        self._handshake_index = None  # it is the keypair's now
        self._dataplane.note_received(self.id, length, source)
        self._indices.free(self._dataplane.install_keypair(self.id, keypair))
        self._session_derived_ns = now.boot_ns
        self.initiator.answered(now)
        self._handshake_completed(now)
        logger.debug("%r event=response_received endpoint=%s", self, source)
        # Staged packets, or failing that a keepalive, confirm the session to the responder.
        self._dataplane.send_keepalive(self.id)

    def receive_cookie_reply(self, reply: CookieReply, now: Instant) -> None:
        """Keep a cookie for the next initiation or response; raises HandshakeError if forged."""
        self._cookies.consume_reply(reply, now.boot_ns)
        self._counts.cookies_received += 1
        logger.debug("%r event=cookie_received", self)

    def keypair_confirmed(self, event: KeypairConfirmed, now: Instant) -> None:
        """The initiator has used the keypair that our response made, unless we dropped it since."""
        if self._indices.owner(event.local_index) is self:
            self._handshake_completed(now)

    def _handshake_completed(self, now: Instant) -> None:
        self._last_handshake_wall_ns = now.wall_ns
        self.initiator.completed()

    def became_active(self, now: Instant) -> None:
        """One of the "first data packet" stamps was set; until we disarm, no other is reported.

        Either may be set or cleared meanwhile, so look at them as often as the shorter timer.
        """
        self._look_at_ns = now.boot_ns + KEEPALIVE_TIMEOUT_NS

    # -- the network changes -----------------------------------------------------------------------

    def network_changed(self, now: Instant, *, is_moved: bool = False) -> None:
        """The network under the tunnel has changed; if `is_moved`, the way to this peer, too.

        Then it is told where we are now. What could not be sent is tried again.
        """
        self.locator.network_changed(now)
        if is_moved:
            self._dataplane.clear_source(self.id)
        if not self._running:
            return
        if is_moved:
            self._tell(now)
        self.initiator.network_changed(now)
        if self.persistent_keepalive_seconds and self.initiator.has_given_up:
            self._dataplane.send_keepalive(self.id)

    def greet(self, now: Instant) -> None:
        """Tell the peer where we are, if it was heard from lately."""
        heard_ns = self._dataplane.stamps(self.id).last_received_ns
        if heard_ns and now.boot_ns - heard_ns < REJECT_AFTER_TIME_NS:
            self._dataplane.send_keepalive(self.id)

    def _tell(self, now: Instant) -> None:
        """Tell the peer where we are, if there is a session, but not twice within REKEY_TIMEOUT.

        Where answers leave another way than they come, every change of routes looks like a move.
        """
        if self._told_ns is not None and now.boot_ns < self._told_ns + REKEY_TIMEOUT_NS:
            self._tell_at_ns = self._told_ns + REKEY_TIMEOUT_NS
            return
        self._tell_at_ns = None
        if not self._dataplane.has_session(self.id):
            return
        self._told_ns = now.boot_ns
        self._dataplane.send_keepalive(self.id)
        if self.locator.has_no_way(now):
            self.needs_handshake(now)  # and find another way

    def woke_up(self, now: Instant, heard_since_ns: int) -> None:
        """The system was suspended, or its clock was set: whom we talked to learns where we are.

        That is who was heard from since `heard_since_ns`, and who has a persistent keepalive.
        """
        self.locator.network_changed(now)
        self._dataplane.clear_source(self.id)
        if not self._running:
            return
        heard_ns = self._dataplane.stamps(self.id).last_received_ns
        if self.persistent_keepalive_seconds or (heard_ns and heard_ns >= heard_since_ns):
            self._dataplane.send_keepalive(self.id)

    # -- timers ------------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """Return when `on_deadline` is due next, in boot nanoseconds; None for never."""
        deadlines = [
            timers.zero_key_material(self._session_derived_ns),
        ]
        if self._running:
            stamps = self._dataplane.stamps(self.id)
            deadlines += [
                self.initiator.next_deadline(),
                self._look_at_ns,
                self._tell_at_ns,
                timers.send_keepalive(stamps),
                timers.new_handshake(stamps, self.initiator.jitter_ns),
                timers.persistent_keepalive(
                    stamps, self.persistent_keepalive_seconds, self._keepalive_enabled_ns
                ),
            ]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def on_deadline(self, now: Instant) -> None:
        """Do whatever is due at `now`, then let the data plane report the next activity."""
        if _is_due(timers.zero_key_material(self._session_derived_ns), now):
            self._expired_zero_key_material()
        if not self._running:
            return
        self.initiator.on_deadline(now)
        if _is_due(self._tell_at_ns, now):
            self._tell(now)
        stamps = self._dataplane.stamps(self.id)
        if _is_due(timers.send_keepalive(stamps), now):
            self._dataplane.send_keepalive(self.id)
        if _is_due(timers.new_handshake(stamps, self.initiator.jitter_ns), now):
            self._expired_new_handshake(now)
        self._check_persistent_keepalive(now)
        stamps = self._dataplane.stamps(self.id)
        if stamps.first_data_sent_unanswered_ns or stamps.first_data_received_unanswered_ns:
            self._look_at_ns = now.boot_ns + KEEPALIVE_TIMEOUT_NS
        else:
            self._look_at_ns = None
            self._dataplane.disarm(self.id)

    def _expired_new_handshake(self, now: Instant) -> None:
        self._dataplane.clear_data_sent_unanswered(self.id)
        self._dataplane.clear_source(self.id)
        logger.debug("%r event=no_answer_to_data", self)
        self.locator.missed(now)
        self.needs_handshake(now)

    def _check_persistent_keepalive(self, now: Instant) -> None:
        # Read the stamps anew: what was sent a moment ago counts.
        deadline_ns = timers.persistent_keepalive(
            self._dataplane.stamps(self.id),
            self.persistent_keepalive_seconds,
            self._keepalive_enabled_ns,
        )
        if _is_due(deadline_ns, now):
            # Even if nothing can be sent (no endpoint, no key), the next try is an interval away.
            self._keepalive_enabled_ns = now.boot_ns
            self._dataplane.send_keepalive(self.id)

    def _expired_zero_key_material(self) -> None:
        logger.debug("%r event=keys_erased", self)
        self._erase_keys()

    # -- pieces ------------------------------------------------------------------------------------

    def _erase_keys(self) -> None:
        self._session_derived_ns = None
        self._handshake.clear()
        self._free_handshake_index()
        self._indices.free(self._dataplane.drop_keypairs(self.id))

    def _free_handshake_index(self) -> None:
        if self._handshake_index is not None:
            self._indices.free([self._handshake_index])
            self._handshake_index = None


def _is_due(deadline_ns: int | None, now: Instant) -> bool:
    return deadline_ns is not None and deadline_ns <= now.boot_ns
