"""Both sides of a handshake agree on keys; no wrong message gets anywhere or changes anything."""

import itertools
import random as pseudo_random
from collections.abc import Callable

import pytest

from wgd.clock import Instant
from wgd.errors import HandshakeError
from wgd.noise.handshake import (
    Handshake,
    HandshakeState,
    IdentifiedInitiation,
    StaticIdentity,
    identify_initiator,
)
from wgd.noise.messages import Initiation, Response
from wgd.noise.primitives import PrivateKey, seal

MILLISECOND_NS = 1_000_000
SECOND_NS = 1000 * MILLISECOND_NS
NOW = Instant(boot_ns=1000 * SECOND_NS, wall_ns=1_700_000_000 * SECOND_NS)
NO_MACS = bytes(32)
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def later(now: Instant, duration_ns: int) -> Instant:
    return Instant(now.boot_ns + duration_ns, now.wall_ns + duration_ns)


class Pair:
    """Two peers that know each other: Alice begins."""

    def __init__(self, alice_psk: bytes = bytes(32), bob_psk: bytes | None = None) -> None:
        self.random: Callable[[int], bytes] = pseudo_random.Random(7).randbytes
        self.alice_identity = StaticIdentity(self.random(32))
        self.bob_identity = StaticIdentity(self.random(32))
        self.alice = Handshake(self.alice_identity, self.bob_identity.public_key, alice_psk)
        self.bob = Handshake(
            self.bob_identity,
            self.alice_identity.public_key,
            alice_psk if bob_psk is None else bob_psk,
        )
        self._indices = itertools.count(1000)

    def initiation(self, now: Instant = NOW) -> bytes:
        body = self.alice.create_initiation(now, next(self._indices), self.random)
        assert len(body) == 116
        return body + NO_MACS

    def identify(self, datagram: bytes) -> IdentifiedInitiation:
        return identify_initiator(self.bob_identity, Initiation.parse(datagram))

    def to_bob(self, datagram: bytes, now: Instant = NOW) -> None:
        self.bob.consume_initiation(self.identify(datagram), now.boot_ns)

    def response(self) -> bytes:
        body = self.bob.create_response(next(self._indices), self.random)
        assert len(body) == 60
        return body + NO_MACS

    def to_alice(self, datagram: bytes) -> None:
        self.alice.consume_response(Response.parse(datagram))

    def states(self) -> tuple[HandshakeState, HandshakeState]:
        return self.alice.state, self.bob.state

    def finish(self) -> None:
        sender = self.alice.derive_keypair(5)
        receiver = self.bob.derive_keypair(6)
        assert sender.send_key == receiver.receive_key
        assert sender.receive_key == receiver.send_key
        assert sender.send_key != sender.receive_key
        assert {len(sender.send_key), len(sender.receive_key)} == {32}
        assert (sender.local_index, sender.remote_index) == (
            receiver.remote_index,
            receiver.local_index,
        )
        assert (sender.is_initiator, receiver.is_initiator) == (True, False)
        assert (sender.created_ns, receiver.created_ns) == (5, 6)
        assert self.alice.state is self.bob.state is HandshakeState.NONE


class Notes:
    """A key log that remembers."""

    def __init__(self) -> None:
        self.notes: list[dict[str, bytes]] = []

    def note(self, **keys: bytes) -> None:
        self.notes.append(keys)


# -- what should happen ----------------------------------------------------------------------------


@pytest.mark.parametrize("psk", [bytes(32), bytes(range(32))])
def test_a_key_log_is_told_the_keys_behind_each_message_that_is_made(psk: bytes) -> None:
    pair = Pair(psk)
    notes = Notes()
    alice, bob = pair.alice_identity, pair.bob_identity
    pair.alice = Handshake(alice, bob.public_key, psk, notes)
    pair.bob = Handshake(bob, alice.public_key, psk, notes)
    initiation = pair.initiation()
    pair.to_bob(initiation)
    response = pair.response()
    pair.to_alice(response)
    pair.finish()
    sent = Initiation.parse(initiation).ephemeral, Response.parse(response).ephemeral
    assert len(notes.notes) == 2
    for note, own, other, ephemeral in zip(
        notes.notes, (alice, bob), (bob, alice), sent, strict=True
    ):
        assert PrivateKey(note["local_static"]).public_key == own.public_key
        assert note["remote_static"] == other.public_key
        assert PrivateKey(note["local_ephemeral"]).public_key == ephemeral
        assert note["preshared_key"] == psk


@pytest.mark.parametrize("psk", [bytes(32), bytes(range(32))])
def test_a_whole_handshake(psk: bytes) -> None:
    pair = Pair(psk)
    initiation = pair.initiation()
    assert pair.states() == (HandshakeState.INITIATION_CREATED, HandshakeState.NONE)
    assert (pair.alice.local_index, pair.alice.remote_index) == (1000, None)

    identified = pair.identify(initiation)
    assert identified.initiator == pair.alice_identity.public_key
    assert identified.initiation.sender_index == 1000
    pair.bob.consume_initiation(identified, NOW.boot_ns)
    assert pair.states()[1] == HandshakeState.INITIATION_CONSUMED
    assert (pair.bob.local_index, pair.bob.remote_index) == (None, 1000)

    response = pair.response()
    assert Response.parse(response).receiver_index == 1000
    assert pair.states()[1] == HandshakeState.RESPONSE_CREATED
    assert (pair.bob.local_index, pair.bob.remote_index) == (1001, 1000)
    pair.to_alice(response)
    assert pair.states()[0] == HandshakeState.RESPONSE_CONSUMED
    assert (pair.alice.local_index, pair.alice.remote_index) == (1000, 1001)
    pair.finish()
    assert (pair.alice.local_index, pair.alice.remote_index) == (None, None)


def test_a_second_handshake_gives_other_keys() -> None:
    pair = Pair()
    keys = set()
    for now in (NOW, later(NOW, SECOND_NS)):
        pair.to_bob(pair.initiation(now), now)
        pair.to_alice(pair.response())
        keypair = pair.alice.derive_keypair(0)
        keys |= {keypair.send_key, keypair.receive_key}
        pair.bob.derive_keypair(0)
    assert len(keys) == 4


def test_roles_can_be_swapped() -> None:
    pair = Pair(bytes(range(32)))
    pair.to_bob(pair.initiation())
    pair.to_alice(pair.response())
    pair.finish()
    pair.alice, pair.bob = pair.bob, pair.alice
    pair.alice_identity, pair.bob_identity = pair.bob_identity, pair.alice_identity
    pair.to_bob(pair.initiation())
    pair.to_alice(pair.response())
    pair.finish()


def test_a_preshared_key_set_in_between_is_used() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation())
    pair.alice.preshared_key = pair.bob.preshared_key = b"\x05" * 32
    pair.to_alice(pair.response())
    pair.finish()


def test_crossing_initiations_the_last_to_arrive_wins() -> None:
    pair = Pair()
    initiation = pair.initiation()
    pair.bob.create_initiation(NOW, 2000, pair.random)
    pair.to_bob(initiation)
    pair.to_alice(pair.response())
    pair.finish()


def test_a_new_initiation_replaces_the_old_one() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation())
    old_response = pair.response()
    now = later(NOW, 5 * SECOND_NS)
    initiation = pair.initiation(now)
    with pytest.raises(HandshakeError, match=r"^no matching initiation$"):
        pair.to_alice(old_response)
    pair.to_bob(initiation, now)
    pair.to_alice(pair.response())
    pair.finish()


# -- what must be refused --------------------------------------------------------------------------


def test_another_preshared_key() -> None:
    pair = Pair(bytes(32), b"\x01" * 32)
    pair.to_bob(pair.initiation())
    response = pair.response()
    with pytest.raises(HandshakeError, match=r"^decryption failed$"):
        pair.to_alice(response)
    assert pair.alice.state is HandshakeState.INITIATION_CREATED
    pair.alice.preshared_key = b"\x01" * 32
    pair.to_alice(response)
    pair.finish()


def test_any_changed_byte_of_an_initiation() -> None:
    pair = Pair()
    initiation = pair.initiation()
    for place in range(8, 116):
        damaged = bytearray(initiation)
        damaged[place] ^= 0x01
        with pytest.raises(HandshakeError, match=r"^decryption failed$"):
            pair.to_bob(bytes(damaged))
        assert pair.bob.state is HandshakeState.NONE
    # Neither the timestamp nor the flood limit was touched.
    pair.to_bob(initiation)
    pair.to_alice(pair.response())
    pair.finish()


def test_a_forged_initiation_does_not_disturb_our_own() -> None:
    pair = Pair()
    pair.bob.create_initiation(NOW, 2000, pair.random)
    damaged = bytearray(pair.initiation())
    damaged[115] ^= 1
    with pytest.raises(HandshakeError, match=r"^decryption failed$"):
        pair.to_bob(bytes(damaged))
    assert pair.bob.state is HandshakeState.INITIATION_CREATED
    assert pair.bob.local_index == 2000


def test_any_changed_byte_of_a_response() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation())
    response = pair.response()
    for place in range(8, 60):
        damaged = bytearray(response)
        damaged[place] ^= 0x01
        reason = "no matching initiation" if place < 12 else "decryption failed"
        with pytest.raises(HandshakeError, match=f"^{reason}$"):
            pair.to_alice(bytes(damaged))
        assert pair.alice.state is HandshakeState.INITIATION_CREATED
    pair.to_alice(response)
    pair.finish()


def test_sender_indices_are_not_authentic_but_macs_cover_them() -> None:
    """The paper leaves bytes 4 to 8 out of the hash; MAC1 and the reply's routing cover them."""
    pair = Pair()
    changed = bytearray(pair.initiation())
    changed[4] ^= 1
    pair.to_bob(bytes(changed))
    with pytest.raises(HandshakeError, match=r"^no matching initiation$"):
        pair.to_alice(pair.response())


def test_a_response_needs_an_initiation() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation())
    response = pair.response()
    pair.to_alice(response)
    with pytest.raises(HandshakeError, match=r"^no matching initiation$"):
        pair.to_alice(response)
    assert pair.alice.state is HandshakeState.RESPONSE_CONSUMED
    pair.finish()
    for handshake in (pair.alice, pair.bob):
        with pytest.raises(HandshakeError, match=r"^no matching initiation$"):
            handshake.consume_response(Response.parse(response))
        assert handshake.state is HandshakeState.NONE


def test_steps_out_of_order() -> None:
    pair = Pair()
    for _ in range(2):  # nothing yet, then an initiation of our own
        with pytest.raises(HandshakeError, match=r"^no initiation to answer$"):
            pair.alice.create_response(1, pair.random)
        with pytest.raises(HandshakeError, match=r"^handshake not finished$"):
            pair.alice.derive_keypair(0)
        initiation = pair.initiation()
    pair.to_bob(initiation)
    with pytest.raises(HandshakeError, match=r"^handshake not finished$"):
        pair.bob.derive_keypair(0)
    pair.response()
    with pytest.raises(HandshakeError, match=r"^no initiation to answer$"):
        pair.response()


def test_our_own_messages_sent_back_to_us() -> None:
    pair = Pair()
    initiation = pair.initiation()
    with pytest.raises(HandshakeError, match=r"^decryption failed$"):
        identify_initiator(pair.alice_identity, Initiation.parse(initiation))
    pair.to_bob(initiation)
    response = pair.response()
    with pytest.raises(HandshakeError, match=r"^no matching initiation$"):
        pair.bob.consume_response(Response.parse(response))
    pair.to_alice(response)
    pair.finish()


def test_a_response_for_another_index() -> None:
    """The same keys on both sides, but a later initiation is the one that waits."""
    pair, other = Pair(), Pair()
    pair.to_bob(pair.initiation())
    other.initiation()
    other.initiation()
    with pytest.raises(HandshakeError, match=r"^no matching initiation$"):
        other.to_alice(pair.response())


def test_an_initiation_of_somebody_else() -> None:
    """Eve names Alice as the initiator, but does not have Alice's key."""
    pair = Pair()
    eve = Handshake(StaticIdentity(b"\x09" * 32), pair.bob_identity.public_key)
    datagram = eve.create_initiation(NOW, 3000, pair.random) + NO_MACS
    identified = pair.identify(datagram)
    assert identified.initiator != pair.alice_identity.public_key
    with pytest.raises(HandshakeError, match=r"^decryption failed$"):
        pair.bob.consume_initiation(identified, NOW.boot_ns)


# -- freshness -------------------------------------------------------------------------------------


def test_a_replayed_initiation() -> None:
    pair = Pair()
    first = pair.initiation()
    second = pair.initiation(later(NOW, SECOND_NS))
    pair.to_bob(second)
    for seconds in (1, 1000):
        for datagram in (first, second):
            with pytest.raises(HandshakeError, match=r"^replayed timestamp$"):
                pair.to_bob(datagram, later(NOW, seconds * SECOND_NS))
    assert pair.bob.state is HandshakeState.INITIATION_CONSUMED
    pair.to_alice(pair.response())
    pair.finish()
    pair.bob.clear()
    with pytest.raises(HandshakeError, match=r"^replayed timestamp$"):
        pair.to_bob(second, later(NOW, SECOND_NS))


def test_one_initiation_per_20_ms() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation())
    second = pair.initiation(later(NOW, SECOND_NS))
    for milliseconds in (0, 1, 19):
        with pytest.raises(HandshakeError, match=r"^initiation flood$"):
            pair.to_bob(second, later(NOW, milliseconds * MILLISECOND_NS))
    with pytest.raises(HandshakeError, match=r"^initiation flood$"):
        pair.to_bob(second, later(NOW, 20 * MILLISECOND_NS - 1))
    # Refusing did not count as consuming, neither for the limit nor for the timestamp.
    pair.to_bob(second, later(NOW, 20 * MILLISECOND_NS))
    pair.to_alice(pair.response())
    pair.finish()


def test_the_first_initiation_may_come_at_boot() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation(), Instant(0, NOW.wall_ns))
    assert pair.bob.state is HandshakeState.INITIATION_CONSUMED


def test_initiations_stay_fresh_when_the_wall_clock_steps_back() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation())
    for number in range(1, 100):
        boot_ns = NOW.boot_ns + number * 20 * MILLISECOND_NS
        pair.to_bob(pair.initiation(Instant(boot_ns, 5)), Instant(boot_ns, 5))


def test_initiations_within_the_same_whitened_moment() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation())
    pair.alice.clear()
    pair.to_bob(pair.initiation(), later(NOW, SECOND_NS))


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_keys_anywhere(point: str) -> None:
    key = bytes.fromhex(point)
    pair = Pair()

    # ... as a peer's static key, when we begin
    inert = Handshake(pair.alice_identity, key)
    with pytest.raises(HandshakeError, match=r"^low-order public key$"):
        inert.create_initiation(NOW, 1, pair.random)
    assert inert.state is HandshakeState.NONE

    # ... as the ephemeral key of an initiation
    initiation = pair.initiation()
    with pytest.raises(HandshakeError, match=r"^low-order public key$"):
        pair.to_bob(initiation[:8] + key + initiation[40:])

    # ... as the static key in an initiation
    eve = _initiation_with_static(pair, key)
    identified = pair.identify(eve)
    assert identified.initiator == key
    with pytest.raises(HandshakeError, match=r"^low-order public key$"):
        Handshake(pair.bob_identity, key).consume_initiation(identified, NOW.boot_ns)

    # ... as the ephemeral key of a response
    pair.to_bob(initiation)
    response = pair.response()
    with pytest.raises(HandshakeError, match=r"^low-order public key$"):
        pair.to_alice(response[:12] + key + response[44:])
    assert pair.alice.state is HandshakeState.INITIATION_CREATED
    pair.to_alice(response)
    pair.finish()


def _initiation_with_static(pair: Pair, static: bytes) -> bytes:
    from wgd.noise.handshake import _Transcript
    from wgd.noise.primitives import kdf2

    ephemeral = PrivateKey.generate(pair.random)
    responder = pair.bob_identity.public_key
    transcript = _Transcript.towards(responder).ephemeral(ephemeral.public_key)
    _, key = kdf2(transcript.chaining_key, ephemeral.dh(responder))
    encrypted_static = seal(key, 0, static, transcript.hash_)
    return Initiation(1, ephemeral.public_key, encrypted_static, bytes(28)).to_bytes() + NO_MACS


def test_without_a_private_key() -> None:
    pair = Pair()
    identified = pair.identify(pair.initiation())
    handshake = Handshake(None, pair.alice_identity.public_key)
    with pytest.raises(HandshakeError, match=r"^no private key$"):
        handshake.create_initiation(NOW, 1, pair.random)
    with pytest.raises(HandshakeError, match=r"^no private key$"):
        handshake.consume_initiation(identified, NOW.boot_ns)
    handshake.set_identity(pair.bob_identity)
    handshake.consume_initiation(identified, NOW.boot_ns)


def test_a_new_private_key_replaces_all_of_the_old_one() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation())
    pair.to_alice(pair.response())
    pair.finish()

    replacement = StaticIdentity(b"\x42" * 32)
    pair.initiation()
    pair.alice.set_identity(replacement)
    assert pair.alice.state is HandshakeState.NONE
    pair.alice_identity = replacement
    pair.bob = Handshake(pair.bob_identity, replacement.public_key)
    pair.to_bob(pair.initiation())
    pair.to_alice(pair.response())
    pair.finish()


def test_forgetting_a_handshake() -> None:
    pair = Pair()
    pair.to_bob(pair.initiation())
    response = pair.response()
    pair.alice.clear()
    assert pair.alice.state is HandshakeState.NONE
    assert pair.alice.local_index is None
    with pytest.raises(HandshakeError, match=r"^no matching initiation$"):
        pair.to_alice(response)


def test_reprs_show_no_secret() -> None:
    pair = Pair(bytes(range(32)))
    initiation = pair.initiation()
    identified = pair.identify(initiation)
    assert repr(pair.alice) == "Handshake(INITIATION_CREATED)"
    assert repr(pair.alice_identity) == "StaticIdentity(...)"
    assert repr(identified) == ("IdentifiedInitiation(initiation=Initiation(sender_index=1000))")
    shown = repr(pair.alice._progress)
    assert "b'" not in shown
    assert "PrivateKey(...)" in shown
