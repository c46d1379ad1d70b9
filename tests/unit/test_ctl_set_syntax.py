"""The words of `wgdctl set`."""

import base64

import pytest

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange
from wgd.ctl import set_syntax
from wgd.ctl.errors import UsageError, ValueTextError

ONE, TWO, SECRET = bytes([1] * 32), bytes([2] * 32), bytes([9] * 32)
KEY, OTHER = (base64.b64encode(key).decode() for key in (ONE, TWO))


def parse(*words: str) -> DeviceChange:
    files = {"key": SECRET, "/dev/null": bytes(32)}
    return set_syntax.parse(
        words,
        read_key_file=files.__getitem__,
        read_endpoint=lambda text: Endpoint(text.partition(":")[0], int(text.partition(":")[2])),
        warn=lambda _: None,
    )


def prefix(first: int) -> AllowedIpChange:
    return AllowedIpChange(Prefix(bytes([first, 0, 0, 0]), 8))


def test_the_interface() -> None:
    change = parse("listen-port", "5", "fwmark", "0xca6c", "private-key", "key")
    assert change == DeviceChange(private_key=SECRET, listen_port=5, fwmark=51820)
    assert parse("private-key", "/dev/null", "fwmark", "off") == DeviceChange(
        private_key=bytes(32), fwmark=0
    )
    assert parse("listen-port", "5", "listen-port", "6") == DeviceChange(listen_port=6)


def test_several_peers_in_one_call() -> None:
    change = parse(
        *("listen-port", "5", "peer", KEY, "remove", "peer", OTHER, "preshared-key", "key"),
        *("endpoint", "192.0.2.1:7", "persistent-keepalive", "off", "allowed-ips", "10.0.0.0/8"),
    )
    expected = PeerChange(
        TWO,
        preshared_key=SECRET,
        endpoint=Endpoint("192.0.2.1", 7),
        persistent_keepalive_seconds=0,
        replace_allowed_ips=True,
        allowed_ips=(prefix(10),),
    )
    assert change == DeviceChange(listen_port=5, peers=(PeerChange(ONE, remove=True), expected))


def test_a_peer_without_words_is_just_added() -> None:
    assert parse("peer", KEY).peers == (PeerChange(ONE),)


def test_allowed_ips() -> None:
    empty = PeerChange(ONE, replace_allowed_ips=True)
    assert parse("peer", KEY, "allowed-ips", "").peers == (empty,)
    (twice,) = parse("peer", KEY, "allowed-ips", "10.0.0.0/8", "allowed-ips", "11.0.0.0/8").peers
    assert twice.allowed_ips == (prefix(10), prefix(11))
    (signed,) = parse("peer", KEY, "allowed-ips", "+10.0.0.0/8").peers
    assert not signed.replace_allowed_ips
    assert signed.allowed_ips == (prefix(10),)


@pytest.mark.parametrize(
    "words",
    [
        *(["foo"], ["remove"], ["endpoint", "192.0.2.1:7"], ["Listen-Port", "5"]),
        *(["listen-port"], ["peer"], ["peer", KEY, "endpoint"], ["peer", KEY, "fwmark", "5"]),
        *(["peer", KEY, "REMOVE"], ["peer", KEY, "listen-port", "5"], [KEY]),
    ],
)
def test_words_that_do_not_belong(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*words)
    assert KEY not in str(caught.value)


def test_what_is_no_key_is_not_repeated() -> None:
    secret = base64.b64encode(SECRET).decode() + "x"
    with pytest.raises(ValueTextError) as caught:
        parse("peer", secret)
    assert secret not in str(caught.value)
    assert "peer" in str(caught.value)
