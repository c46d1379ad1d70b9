"""The primitives give the numbers that the RFCs and the XChaCha draft publish: both twins do."""

import hashlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.testbed.engines import require_engine
from tests.unit.fake_native import use_extension
from wgd.errors import HandshakeError
from wgd.extension import INTERFACE_VERSION
from wgd.noise import portable_primitives
from wgd.noise import primitives as chosen

primitives: Any = chosen


def _load() -> ModuleType:
    """Return another `wgd.noise.primitives`, which chooses its twin anew."""
    spec = importlib.util.spec_from_file_location("primitives_of_a_test", chosen.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["native", "portable"], autouse=True)
def _twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    require_engine(request.param)
    if request.param == "portable":
        use_extension(monkeypatch, None)
    module = _load()
    is_native = module.__dict__["_twin"] is not portable_primitives
    if request.param == "native" and not sys.modules["wgd_native"].HAS_PRIMITIVES:
        pytest.skip("this processor is not one of graviola's")
    assert is_native == (request.param == "native")
    monkeypatch.setitem(globals(), "primitives", module)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


# -- X25519: RFC 7748 ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scalar", "point", "product"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_x25519_section_5_2(scalar: str, point: str, product: str) -> None:
    assert primitives.PrivateKey(unhex(scalar)).dh(unhex(point)).hex() == product


def test_x25519_iterated() -> None:
    scalar = point = b"\x09" + bytes(31)
    after: dict[int, str] = {}
    for iteration in range(1, 1001):
        scalar, point = primitives.PrivateKey(scalar).dh(point), scalar
        after[iteration] = scalar.hex()
    assert after[1] == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert after[1000] == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_x25519_section_6_1() -> None:
    alice = primitives.PrivateKey(
        unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    )
    bob = primitives.PrivateKey(
        unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    )
    assert alice.public_key.hex() == (
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    )
    assert bob.public_key.hex() == (
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    )
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.dh(bob.public_key).hex() == shared
    assert bob.dh(alice.public_key).hex() == shared


LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("top_bit", [0, 0x80])
@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_points_are_refused(point: str, top_bit: int) -> None:
    encoded = bytearray(unhex(point))
    encoded[31] |= top_bit  # X25519 ignores this bit
    with pytest.raises(HandshakeError, match=r"^low-order public key$"):
        primitives.PrivateKey(bytes(range(32))).dh(bytes(encoded))


def test_generated_keys_are_clamped_and_use_the_given_randomness() -> None:
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return b"\xff" * size

    key = primitives.PrivateKey.generate(random)
    assert asked == [32]
    assert primitives.clamp(b"\xff" * 32) == b"\xf8" + b"\xff" * 30 + b"\x7f"
    assert primitives.clamp(bytes(32)) == bytes(31) + b"\x40"
    # Not clamped and clamped bytes are the same key.
    assert key.public_key == primitives.PrivateKey(b"\xff" * 32).public_key


def test_a_key_of_a_wrong_length_is_not_called_low_order() -> None:
    with pytest.raises(ValueError, match="32"):
        primitives.PrivateKey(bytes(31))
    with pytest.raises(ValueError, match="32"):
        primitives.PrivateKey(bytes(32)).dh(bytes(31))


def test_private_keys_do_not_show_in_their_repr() -> None:
    assert repr(primitives.PrivateKey(bytes(range(32)))) == "PrivateKey(...)"


# -- BLAKE2s: RFC 7693 -----------------------------------------------------------------------------


def test_blake2s_abc() -> None:
    assert primitives.blake2s(b"abc").hex() == (
        "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
    )


def test_blake2s_keyed_known_answers() -> None:
    key = bytes(range(32))
    assert hashlib.blake2s(b"", key=key).hexdigest() == (
        "48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49"
    )
    assert hashlib.blake2s(b"\x00", key=key).hexdigest() == (
        "40d15fee7c328830166ac3f918650f807e7e01e177258cdc0a39b11f598066f1"
    )


def _self_test_sequence(size: int, seed: int) -> bytes:
    a, b = 0xDEAD4BAD * seed & 0xFFFFFFFF, 1
    sequence = bytearray()
    for _ in range(size):
        a, b = b, (a + b) & 0xFFFFFFFF
        sequence.append(b >> 24)
    return bytes(sequence)


def test_blake2s_self_test_of_appendix_e() -> None:
    """One grand hash over four digest sizes; ours stand in wherever they can."""
    grand = bytearray()
    for digest_size in (16, 20, 28, 32):
        for size in (0, 3, 64, 65, 255, 1024):
            data = _self_test_sequence(size, size)
            key = _self_test_sequence(digest_size, digest_size)
            if digest_size == 32:
                grand += primitives.blake2s(data)
            else:
                grand += hashlib.blake2s(data, digest_size=digest_size).digest()
            if digest_size == 16:
                grand += primitives.mac(key, data)
            else:
                grand += hashlib.blake2s(data, key=key, digest_size=digest_size).digest()
    assert primitives.blake2s(bytes(grand)).hex() == (
        "6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe"
    )


# -- HMAC and the key derivation: RFC 2104 and RFC 5869 by their definitions -----------------------


def _hmac_by_definition(key: bytes, data: bytes) -> bytes:
    block = (key if len(key) <= 64 else hashlib.blake2s(key).digest()).ljust(64, b"\0")
    inner = hashlib.blake2s(bytes(byte ^ 0x36 for byte in block) + data).digest()
    return hashlib.blake2s(bytes(byte ^ 0x5C for byte in block) + inner).digest()


@pytest.mark.parametrize("key_size", [0, 32, 64, 65])
@pytest.mark.parametrize("size", [0, 1, 33, 200])
def test_hmac_is_over_64_byte_blocks(key_size: int, size: int) -> None:
    key, data = bytes(range(key_size)), bytes(range(size))
    assert primitives.hmac_blake2s(key, data) == _hmac_by_definition(key, data)


@pytest.mark.parametrize("secret", [b"", bytes(32), bytes(range(32))])
def test_key_derivation_is_hkdf_without_info(secret: bytes) -> None:
    chaining_key = bytes(range(100, 132))
    extracted = _hmac_by_definition(chaining_key, secret)
    expected = [_hmac_by_definition(extracted, b"\x01")]
    expected += [_hmac_by_definition(extracted, expected[0] + b"\x02")]
    expected += [_hmac_by_definition(extracted, expected[1] + b"\x03")]
    assert primitives.kdf1(chaining_key, secret) == expected[0]
    assert primitives.kdf2(chaining_key, secret) == tuple(expected[:2])
    assert primitives.kdf3(chaining_key, secret) == tuple(expected)


def test_equal() -> None:
    assert primitives.equal(b"same", b"same")
    assert not primitives.equal(b"same", b"sane")
    assert not primitives.equal(b"same", b"sam")


# -- ChaCha20-Poly1305: RFC 8439 -------------------------------------------------------------------


def test_chacha20_poly1305_appendix_a_5() -> None:
    """The published vector whose nonce begins with 32 zero bits, as a counter's does."""
    key = unhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0")
    associated = unhex("f33388860000000000004e91")
    ciphertext = unhex(
        "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2"
        "4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf"
        "332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855"
        "9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4"
        "b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e"
        "af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a"
        "0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10"
        "49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29"
        "a6ad5cb4022b02709b"
        "eead9d67890cbb22392336fea1851f38"
    )
    counter = 0x0807060504030201
    plaintext = primitives.unseal(key, counter, ciphertext, associated)
    assert plaintext.startswith(b"Internet-Drafts are draft documents valid for a maximum of six ")
    assert len(plaintext) == 265
    assert primitives.seal(key, counter, plaintext, associated) == ciphertext


@pytest.mark.parametrize("counter", [0, 1, 2**64 - 2])
def test_a_counter_is_little_endian_after_32_zero_bits(counter: int) -> None:
    key, nonce = bytes(range(32)), bytes(4) + counter.to_bytes(8, "little")
    expected = ChaCha20Poly1305(key).encrypt(nonce, b"text", b"associated")
    assert primitives.seal(key, counter, b"text", b"associated") == expected


def test_unseal_refuses_what_was_changed() -> None:
    key = bytes(range(32))
    ciphertext = primitives.seal(key, 1, b"text", b"associated")
    for damaged in (ciphertext[:-1], bytes([ciphertext[0] ^ 1]) + ciphertext[1:], b""):
        with pytest.raises(HandshakeError, match=r"^decryption failed$"):
            primitives.unseal(key, 1, damaged, b"associated")
    with pytest.raises(HandshakeError, match=r"^decryption failed$"):
        primitives.unseal(key, 2, ciphertext, b"associated")
    with pytest.raises(HandshakeError, match=r"^decryption failed$"):
        primitives.unseal(key, 1, ciphertext, b"Associated")


# -- XChaCha20-Poly1305: draft-irtf-cfrg-xchacha-03 ------------------------------------------------


def test_xchacha20_poly1305_appendix_a_3_1() -> None:
    key = unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f")
    nonce = unhex("404142434445464748494a4b4c4d4e4f5051525354555657")
    associated = unhex("50515253c0c1c2c3c4c5c6c7")
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )
    ciphertext = unhex(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
        "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52e"
        "c0875924c1c7987947deafd8780acf49"
    )
    assert primitives.extended_seal(key, nonce, plaintext, associated) == ciphertext
    assert primitives.extended_unseal(key, nonce, ciphertext, associated) == plaintext
    with pytest.raises(HandshakeError, match=r"^decryption failed$"):
        primitives.extended_unseal(key, nonce, ciphertext, b"")


# -- the twins -------------------------------------------------------------------------------------


def _dh(key: Any, public_key: bytes) -> bytes | None:
    try:
        secret: bytes = key.dh(public_key)
    except (HandshakeError, ValueError):
        return None
    return secret


short = st.binary(max_size=200)
key32 = st.binary(min_size=32, max_size=32)


@settings(max_examples=50, deadline=None)
@given(key=key32, other=key32, data=short, associated=short, counter=st.integers(0, 2**64 - 1))
def test_both_give_the_same(
    key: bytes, other: bytes, data: bytes, associated: bytes, counter: int
) -> None:
    twin = portable_primitives
    mine, theirs = primitives.PrivateKey(key), twin.PrivateKey(key)
    assert mine.public_key == theirs.public_key
    assert mine.to_bytes() == theirs.to_bytes() == key
    assert mine.dh(primitives.PrivateKey(other).public_key) == theirs.dh(
        twin.PrivateKey(other).public_key
    )
    assert _dh(mine, other) == _dh(theirs, other)  # on the curve, its twist or of low order
    for name in ("kdf1", "kdf2", "kdf3", "hmac_blake2s", "mac"):
        assert getattr(primitives, name)(key, data) == getattr(twin, name)(key, data)
    assert primitives.blake2s(data) == twin.blake2s(data)
    sealed = primitives.seal(key, counter, data, associated)
    assert sealed == twin.seal(key, counter, data, associated)
    assert primitives.unseal(key, counter, sealed, associated) == data


@pytest.mark.parametrize("interface_version", [None, INTERFACE_VERSION - 1, INTERFACE_VERSION])
def test_an_extension_without_them_or_of_another_wgd_is_not_used(
    monkeypatch: pytest.MonkeyPatch, interface_version: int | None
) -> None:
    use_extension(monkeypatch, object, interface_version=interface_version)
    if interface_version != INTERFACE_VERSION:
        monkeypatch.setattr(sys.modules["wgd_native"], "HAS_PRIMITIVES", True, raising=False)
    assert _load().__dict__["_twin"] is portable_primitives
