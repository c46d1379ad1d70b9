"""The keypairs of a peer: one current, the one before it, and one waiting to be confirmed.

                install (initiator)                    install (responder)
    previous <- an unconfirmed next, or the current    erased
    current  <- the new one                            as it was
    next     <- nothing                                the new one

    confirm: previous <- current <- next, when the first packet under `next` was authenticated.

Whatever falls out is forgotten at once: its receiver index is returned so that it can be reused.
"""

from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgd.constants import REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME_NS, REKEY_AFTER_TIME_NS
from wgd.noise.keypair import Keypair
from wgd.noise.replay import ReplayWindow

NEVER_NS: Final = 2**63


class Session:
    """A keypair at work: its ciphers, the next counter to send with, the counters received."""

    __slots__ = (
        "created_ns",
        "is_initiator",
        "local_index",
        "opener",
        "rekey_reported",
        "remote_index",
        "renew_after_ns",
        "replay",
        "sealer",
        "send_before_ns",
        "send_counter",
    )

    def __init__(self, keypair: Keypair) -> None:
        self.local_index = keypair.local_index
        self.remote_index = keypair.remote_index
        self.is_initiator = keypair.is_initiator
        self.created_ns = keypair.created_ns
        self.sealer = ChaCha20Poly1305(keypair.send_key)
        self.opener = ChaCha20Poly1305(keypair.receive_key)
        self.send_counter = 0
        self.replay = ReplayWindow()
        self.send_before_ns = keypair.created_ns + REJECT_AFTER_TIME_NS
        """When sending under this keypair ends; 0 if the control plane has ended it already."""
        self.renew_after_ns = (
            keypair.created_ns + REKEY_AFTER_TIME_NS if keypair.is_initiator else NEVER_NS
        )
        """From when on a packet sent asks for a new keypair: that is the initiator's task."""
        self.rekey_reported = False
        """Whether a received packet has already asked for the renewal of this keypair."""

    def can_send(self, now_ns: int) -> bool:
        """Whether a packet may still be sent under this keypair (paper, section 6.2)."""
        return now_ns < self.send_before_ns and self.send_counter < REJECT_AFTER_MESSAGES


class KeypairSlots:
    """The previous, current and next session of one peer."""

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: Session | None = None

    def install(self, session: Session) -> tuple[int, ...]:
        """Add a session; return the receiver indices of those it pushed out."""
        if not session.is_initiator:
            pushed_out = _indices(self.next, self.previous)
            self.next, self.previous = session, None
        elif self.next is not None:
            # The other side has completed a handshake since `current` was made: it uses `next`.
            pushed_out = _indices(self.current, self.previous)
            self.previous, self.current, self.next = self.next, session, None
        else:
            pushed_out = _indices(self.previous)
            self.previous, self.current = self.current, session
        return pushed_out

    def confirm(self) -> tuple[int, ...]:
        """Make `next` the current one; return the receiver indices of those it pushed out."""
        pushed_out = _indices(self.previous)
        self.previous, self.current, self.next = self.current, self.next, None
        return pushed_out

    def expire(self) -> None:
        """Never send under the sessions that are here now."""
        for session in (self.previous, self.current, self.next):
            if session is not None:
                session.send_before_ns = 0

    def clear(self) -> tuple[int, ...]:
        """Forget all sessions; return their receiver indices."""
        pushed_out = _indices(self.previous, self.current, self.next)
        self.previous = self.current = self.next = None
        return pushed_out


def _indices(*sessions: Session | None) -> tuple[int, ...]:
    return tuple(session.local_index for session in sessions if session is not None)
