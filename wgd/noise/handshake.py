"""Noise_IKpsk2 as WireGuard uses it (paper, sections 5.4.2 to 5.4.5): one handshake per peer.

As initiator                             As responder
1 `create_initiation`  → 116 bytes       1 `identify_initiator` (who is it? no peer involved yet)
2 `consume_response`   (authentic?)      2 `consume_initiation` (fresh?)
3 `derive_keypair`                       3 `create_response`    → 60 bytes
                                         4 `derive_keypair`

The progress of a handshake is one immutable value, replaced in one assignment once all has been
computed: a message that is refused, at whatever step, leaves everything as it was. Secrets of a
step that is over are dropped with that value; Python cannot promise to erase them.

An initiation is accepted in any state, so of two crossing ones the last to arrive wins.
"""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

from wgd.clock import Instant
from wgd.constants import INITIATION_INTERVAL_MIN_NS, KEY_SIZE
from wgd.diagnosis import FailureReason
from wgd.errors import HandshakeError
from wgd.noise import tai64n
from wgd.noise.keypair import Keypair
from wgd.noise.messages import Initiation, Response
from wgd.noise.primitives import (
    PrivateKey,
    Random,
    blake2s,
    kdf1,
    kdf2,
    kdf3,
    seal,
    unseal,
)

_CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
_IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_INITIAL_CHAINING_KEY: Final = blake2s(_CONSTRUCTION)
_INITIAL_HASH: Final = blake2s(_INITIAL_CHAINING_KEY + _IDENTIFIER)
_NO_PRESHARED_KEY: Final = bytes(KEY_SIZE)


class KeyLog(Protocol):
    """Who is told the keys of every handshake, so that what is captured can be read."""

    def note(
        self,
        *,
        local_static: bytes,
        remote_static: bytes,
        local_ephemeral: bytes,
        preshared_key: bytes,
    ) -> None:
        """Take our static and ephemeral private keys, the peer's public one and the preshared one
        (32 raw bytes each, zeros for no preshared key). Never raises.
        """


class HandshakeState(Enum):
    """How far a handshake has come."""

    NONE = auto()
    INITIATION_CREATED = auto()
    INITIATION_CONSUMED = auto()
    RESPONSE_CREATED = auto()
    RESPONSE_CONSUMED = auto()


@dataclass(frozen=True, slots=True)
class _Transcript:
    """Chaining key and hash, C and H of the paper; every step returns the next one."""

    chaining_key: bytes = field(repr=False)
    hash_: bytes = field(repr=False)

    @classmethod
    def towards(cls, responder: bytes) -> "_Transcript":
        """Begin a handshake with the responder of that static public key."""
        return cls(_INITIAL_CHAINING_KEY, blake2s(_INITIAL_HASH + responder))

    def ephemeral(self, public_key: bytes) -> "_Transcript":
        """Mix in an ephemeral public key as it goes over the wire."""
        return _Transcript(kdf1(self.chaining_key, public_key), blake2s(self.hash_ + public_key))

    def secret(self, shared: bytes) -> "_Transcript":
        """Mix in a shared secret that encrypts nothing by itself."""
        return _Transcript(kdf1(self.chaining_key, shared), self.hash_)

    def seal(self, shared: bytes, plaintext: bytes) -> "tuple[_Transcript, bytes]":
        """Mix in a shared secret and encrypt under it; also return the ciphertext."""
        chaining_key, key = kdf2(self.chaining_key, shared)
        ciphertext = seal(key, 0, plaintext, self.hash_)
        return _Transcript(chaining_key, blake2s(self.hash_ + ciphertext)), ciphertext

    def unseal(self, shared: bytes, ciphertext: bytes) -> "tuple[_Transcript, bytes]":
        """Undo `seal`; also return the plaintext. Raises HandshakeError if it is not authentic."""
        chaining_key, key = kdf2(self.chaining_key, shared)
        plaintext = unseal(key, 0, ciphertext, self.hash_)
        return _Transcript(chaining_key, blake2s(self.hash_ + ciphertext)), plaintext

    def preshared(self, preshared_key: bytes) -> "tuple[_Transcript, bytes]":
        """Mix in the preshared key; also return the key of the empty text in the response."""
        chaining_key, temporary, key = kdf3(self.chaining_key, preshared_key)
        return _Transcript(chaining_key, blake2s(self.hash_ + temporary)), key


class StaticIdentity:
    """Our own static key: 32 bytes of private key, not necessarily clamped."""

    __slots__ = ("private_key", "transcript")

    def __init__(self, private_key: bytes) -> None:
        self.private_key = PrivateKey(private_key)
        # Where every handshake with us as the responder begins.
        self.transcript = _Transcript.towards(self.public_key)

    @property
    def public_key(self) -> bytes:
        """Our static public key, 32 bytes."""
        return self.private_key.public_key

    def __repr__(self) -> str:
        return "StaticIdentity(...)"


@dataclass(frozen=True, slots=True)
class IdentifiedInitiation:
    """An initiation whose sender claims to be `initiator` (static public key, 32 bytes).

    Anybody who knows our public key can make one: only `consume_initiation` proves the claim.
    """

    initiator: bytes = field(repr=False)
    initiation: Initiation
    transcript: _Transcript = field(repr=False)


def identify_initiator(identity: StaticIdentity, initiation: Initiation) -> IdentifiedInitiation:
    """Decrypt who sent an initiation to us (paper, section 5.4.2, up to msg.static).

    Raises HandshakeError: "low-order public key", "decryption failed"; whose it is nobody knows.
    """
    transcript = identity.transcript.ephemeral(initiation.ephemeral)
    try:
        shared = identity.private_key.dh(initiation.ephemeral)
        transcript, initiator = transcript.unseal(shared, initiation.encrypted_static)
    except HandshakeError as error:
        raise HandshakeError(str(error), FailureReason.MALFORMED_MESSAGE) from None
    return IdentifiedInitiation(initiator, initiation, transcript)


@dataclass(frozen=True, slots=True)
class _InitiationCreated:
    local_index: int
    ephemeral: PrivateKey
    transcript: _Transcript


@dataclass(frozen=True, slots=True)
class _InitiationConsumed:
    remote_index: int
    remote_ephemeral: bytes = field(repr=False)
    transcript: _Transcript


@dataclass(frozen=True, slots=True)
class _Finished:
    is_initiator: bool
    local_index: int
    remote_index: int
    chaining_key: bytes = field(repr=False)


_Progress = _InitiationCreated | _InitiationConsumed | _Finished


class Handshake:
    """The handshake with one peer.

    `identity` is ours, None while no private key is set; `remote_static` is the peer's public key
    and `preshared_key` 32 bytes, zeros for none: both sides read it when the response is made.
    `key_log` is told the keys of every message that is made.
    """

    __slots__ = (
        "_identity",
        "_key_log",
        "_last_initiation_consumed_ns",
        "_last_timestamp_sent_ns",
        "_latest_timestamp",
        "_progress",
        "_static_static",
        "preshared_key",
        "remote_static",
    )

    def __init__(
        self,
        identity: StaticIdentity | None,
        remote_static: bytes,
        preshared_key: bytes = _NO_PRESHARED_KEY,
        key_log: KeyLog | None = None,
    ) -> None:
        self.remote_static = remote_static
        self.preshared_key = preshared_key
        self._identity = identity
        self._key_log = key_log
        self._static_static: bytes | None = None
        self._progress: _Progress | None = None
        # These three outlive a handshake: they are what makes a replay recognisable.
        self._latest_timestamp = bytes(tai64n.TIMESTAMP_SIZE)
        self._last_initiation_consumed_ns: int | None = None
        self._last_timestamp_sent_ns: int | None = None

    def __repr__(self) -> str:
        return f"Handshake({self.state.name})"

    # -- what it is at ----------------------------------------------------------------------------

    @property
    def state(self) -> HandshakeState:
        """How far it has come."""
        match self._progress:
            case None:
                return HandshakeState.NONE
            case _InitiationCreated():
                return HandshakeState.INITIATION_CREATED
            case _InitiationConsumed():
                return HandshakeState.INITIATION_CONSUMED
            case _Finished(is_initiator=True):
                return HandshakeState.RESPONSE_CONSUMED
            case _Finished():
                return HandshakeState.RESPONSE_CREATED

    @property
    def local_index(self) -> int | None:
        """The index the peer was told to answer to; None until we have sent a message."""
        match self._progress:
            case _InitiationCreated(local_index=index) | _Finished(local_index=index):
                return index
        return None

    @property
    def remote_index(self) -> int | None:
        """The index the peer told us to answer to; None until it has sent a message."""
        match self._progress:
            case _InitiationConsumed(remote_index=index) | _Finished(remote_index=index):
                return index
        return None

    def clear(self) -> None:
        """Forget the handshake in progress and its secrets, but not the timestamps seen."""
        self._progress = None

    def set_identity(self, identity: StaticIdentity | None) -> None:
        """Use another key of our own; a handshake in progress under the old one is forgotten."""
        self._identity = identity
        self._static_static = None
        self.clear()

    # -- initiator --------------------------------------------------------------------------------

    def create_initiation(self, now: Instant, local_index: int, random: Random) -> bytes:
        """Begin anew as initiator; return the message without MACs, 116 bytes (section 5.4.2).

        Raises HandshakeError: "no private key", "low-order public key" (the peer's static one).
        """
        identity = self._own_identity()
        timestamp_ns = tai64n.after(now.wall_ns, self._last_timestamp_sent_ns)
        ephemeral = PrivateKey.generate(random)

        transcript = _Transcript.towards(self.remote_static).ephemeral(ephemeral.public_key)
        transcript, encrypted_static = transcript.seal(
            ephemeral.dh(self.remote_static), identity.public_key
        )
        transcript, encrypted_timestamp = transcript.seal(
            self._static_static_secret(), tai64n.label(timestamp_ns)
        )
        message = Initiation(
            local_index, ephemeral.public_key, encrypted_static, encrypted_timestamp
        ).to_bytes()

        self._last_timestamp_sent_ns = timestamp_ns
        self._progress = _InitiationCreated(local_index, ephemeral, transcript)
        self._log_keys(ephemeral)
        return message

    def consume_response(self, response: Response) -> None:
        """Take the answer to our initiation (section 5.4.3).

        Raises HandshakeError: "no matching initiation", "low-order public key", "decryption failed"
        (forged, or the preshared keys differ).
        """
        created = self._progress
        if (
            not isinstance(created, _InitiationCreated)
            or response.receiver_index != created.local_index
        ):
            raise HandshakeError("no matching initiation", FailureReason.UNKNOWN_INDEX)
        identity = self._own_identity()

        transcript = created.transcript.ephemeral(response.ephemeral)
        try:
            transcript = transcript.secret(created.ephemeral.dh(response.ephemeral))
            transcript = transcript.secret(identity.private_key.dh(response.ephemeral))
            transcript, key = transcript.preshared(self.preshared_key)
            unseal(key, 0, response.encrypted_nothing, transcript.hash_)
        except HandshakeError as error:
            raise HandshakeError(str(error), FailureReason.RESPONSE_NOT_AUTHENTIC) from None

        self._progress = _Finished(
            True, created.local_index, response.sender_index, transcript.chaining_key
        )

    # -- responder --------------------------------------------------------------------------------

    def consume_initiation(self, identified: IdentifiedInitiation, now_ns: int) -> None:
        """Prove that the initiation came from this peer and is fresh (section 5.4.2 and 5.1).

        `now_ns` is boot time. Raises HandshakeError: "no private key", "low-order public key",
        "decryption failed", "replayed timestamp", "initiation flood".
        """
        shared = self._static_static_secret()
        try:
            transcript, timestamp = identified.transcript.unseal(
                shared, identified.initiation.encrypted_timestamp
            )
        except HandshakeError as error:
            raise HandshakeError(str(error), FailureReason.INITIATION_NOT_AUTHENTIC) from None
        if timestamp <= self._latest_timestamp:
            raise HandshakeError("replayed timestamp", FailureReason.REPLAYED_TIMESTAMP)
        last_ns = self._last_initiation_consumed_ns
        if last_ns is not None and now_ns - last_ns < INITIATION_INTERVAL_MIN_NS:
            raise HandshakeError("initiation flood", FailureReason.INITIATION_FLOOD)

        self._latest_timestamp = timestamp
        self._last_initiation_consumed_ns = now_ns
        self._progress = _InitiationConsumed(
            identified.initiation.sender_index, identified.initiation.ephemeral, transcript
        )

    def create_response(self, local_index: int, random: Random) -> bytes:
        """Answer the initiation; return the message without MACs, 60 bytes (section 5.4.3).

        Raises HandshakeError: "no initiation to answer", "low-order public key".
        """
        consumed = self._progress
        if not isinstance(consumed, _InitiationConsumed):
            raise HandshakeError("no initiation to answer")
        ephemeral = PrivateKey.generate(random)

        transcript = consumed.transcript.ephemeral(ephemeral.public_key)
        transcript = transcript.secret(ephemeral.dh(consumed.remote_ephemeral))
        transcript = transcript.secret(ephemeral.dh(self.remote_static))
        transcript, key = transcript.preshared(self.preshared_key)
        message = Response(
            local_index,
            consumed.remote_index,
            ephemeral.public_key,
            seal(key, 0, b"", transcript.hash_),
        ).to_bytes()

        self._progress = _Finished(
            False, local_index, consumed.remote_index, transcript.chaining_key
        )
        self._log_keys(ephemeral)
        return message

    # -- both -------------------------------------------------------------------------------------

    def derive_keypair(self, now_ns: int) -> Keypair:
        """Return the session keys and forget the handshake (section 5.4.5).

        Raises HandshakeError "handshake not finished" before a response was made or taken.
        """
        finished = self._progress
        if not isinstance(finished, _Finished):
            raise HandshakeError("handshake not finished")
        to_responder, to_initiator = kdf2(finished.chaining_key, b"")
        self.clear()
        return Keypair(
            local_index=finished.local_index,
            remote_index=finished.remote_index,
            send_key=to_responder if finished.is_initiator else to_initiator,
            receive_key=to_initiator if finished.is_initiator else to_responder,
            is_initiator=finished.is_initiator,
            created_ns=now_ns,
        )

    def _log_keys(self, ephemeral: PrivateKey) -> None:
        if self._key_log is not None:
            self._key_log.note(
                local_static=self._own_identity().private_key.to_bytes(),
                remote_static=self.remote_static,
                local_ephemeral=ephemeral.to_bytes(),
                preshared_key=self.preshared_key,
            )

    def _own_identity(self) -> StaticIdentity:
        if self._identity is None:
            raise HandshakeError("no private key", FailureReason.NO_PRIVATE_KEY)
        return self._identity

    def _static_static_secret(self) -> bytes:
        # Computed when first needed: a device with ten thousand peers starts without waiting.
        if self._static_static is None:
            self._static_static = self._own_identity().private_key.dh(self.remote_static)
        return self._static_static
