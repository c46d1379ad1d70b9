"""Where handshake messages come in that the data plane lets in: each is understood, and given to
its peer.

What is refused is counted for the peer that it names, or for nobody's, and logged within measure:
anybody who knows our public key can send such messages. Sans-IO.
"""

import base64
import logging
from collections.abc import Callable, Mapping
from typing import Final

from wgd.clock import Instant
from wgd.constants import SECOND_NS
from wgd.core.handshake_counts import HandshakeCounts
from wgd.core.index_table import IndexTable
from wgd.core.peer import Peer
from wgd.dataplane.interface import HandshakeMessage
from wgd.diagnosis import FailureLog, FailureReason
from wgd.errors import HandshakeError
from wgd.noise.handshake import StaticIdentity, identify_initiator
from wgd.noise.messages import CookieReply, Initiation, MessageType, Response, message_type

logger = logging.getLogger(__name__)

REFUSAL_LOG_INTERVAL_NS: Final = 1 * SECOND_NS
"""Of messages refused for one reason a line is logged at most this often."""


class Reception:
    """The reception of one device, whose `peers` (by public key) and `indices` it only reads.

    `catch_up` is called with a peer before a message is given to it.
    """

    def __init__(
        self,
        peers: Mapping[bytes, Peer],
        indices: IndexTable[Peer],
        *,
        counts: HandshakeCounts,
        catch_up: Callable[[Peer, Instant], None],
    ) -> None:
        self.is_open = False
        """Whether the link is up: else nothing is taken."""
        self.failures = FailureLog()
        """What was refused that belongs to no peer."""
        self._peers = peers
        self._indices = indices
        self._counts = counts
        self._catch_up = catch_up
        self._identity: StaticIdentity | None = None
        self._log_after_ns: dict[FailureReason, int] = {}

    def set_identity(self, identity: StaticIdentity | None) -> None:
        """Our own static key has changed; without one nothing is taken."""
        self._identity = identity

    def receive(self, message: HandshakeMessage, now: Instant) -> Peer | None:
        """Handle a message that the data plane let in. Never raises.

        Returns the peer that may have other deadlines now.
        """
        if self._identity is None or not self.is_open:
            return None
        try:
            parsed = _parse(message.datagram)
            if isinstance(parsed, CookieReply):
                self._receive_cookie_reply(parsed, message, now)
                return None
            if isinstance(parsed, Initiation):
                return self._receive_initiation(self._identity, parsed, message, now)
            return self._receive_response(parsed, message, now)
        except HandshakeError as error:
            self._refuse(error, self.failures, message, now)
            return None

    def _receive_initiation(
        self, identity: StaticIdentity, parsed: Initiation, message: HandshakeMessage, now: Instant
    ) -> Peer | None:
        initiation = identify_initiator(identity, parsed)
        peer = self._peers.get(initiation.initiator)
        if peer is None:
            error = HandshakeError("unknown key", FailureReason.UNKNOWN_PEER)
            claimed = base64.b64encode(initiation.initiator).decode()
            self._refuse(error, self.failures, message, now, f"{claimed} ")
            return None
        self._catch_up(peer, now)
        try:
            peer.receive_initiation(initiation, len(message.datagram), message.source, now)
        except HandshakeError as error:
            self._refuse(error, peer.failures, message, now)
        return peer

    def _receive_response(self, parsed: Response, message: HandshakeMessage, now: Instant) -> Peer:
        peer = self._owner(parsed.receiver_index, now)
        try:
            peer.receive_response(parsed, len(message.datagram), message.source, now)
        except HandshakeError as error:
            # One that answers no initiation of ours may be anybody's.
            is_late = error.reason is FailureReason.UNKNOWN_INDEX
            self._refuse(error, self.failures if is_late else peer.failures, message, now)
        return peer

    def _receive_cookie_reply(
        self, parsed: CookieReply, message: HandshakeMessage, now: Instant
    ) -> None:
        peer = self._owner(parsed.receiver_index, now)
        try:
            peer.receive_cookie_reply(parsed, now)
        except HandshakeError as error:
            self._refuse(error, peer.failures, message, now)

    def _owner(self, receiver_index: int, now: Instant) -> Peer:
        peer = self._indices.owner(receiver_index)
        if peer is None:
            raise HandshakeError("unknown receiver index", FailureReason.UNKNOWN_INDEX)
        self._catch_up(peer, now)
        return peer

    def _refuse(
        self,
        error: HandshakeError,
        failures: FailureLog,
        message: HandshakeMessage,
        now: Instant,
        who: str = "",
    ) -> None:
        """Count a message that was refused, and log it unless its like was logged just before."""
        self._counts.refused += 1
        failures.note(error.reason, now.wall_ns, f"{who}from {message.source}")
        if now.boot_ns >= self._log_after_ns.get(error.reason, 0):
            self._log_after_ns[error.reason] = now.boot_ns + REFUSAL_LOG_INTERVAL_NS
            logger.debug("event=handshake_refused source=%s reason=%s", message.source, error)


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
