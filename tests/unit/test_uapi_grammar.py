"""Proves which values the configuration protocol takes, and that it takes no others."""

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.addresses import Endpoint, Prefix
from wgd.uapi import grammar

NAMED_ZONES = {"eth0": 7, "en0": 3}


def resolve(name: str) -> int:
    if name == "refused":
        raise ValueError("refused")
    if name not in NAMED_ZONES:
        raise OSError("no such interface")
    return NAMED_ZONES[name]


def test_key_takes_either_case() -> None:
    assert grammar.key(b"aB" * 32) == b"\xab" * 32
    assert grammar.key(b"0" * 64) == bytes(32)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0" * 63,
        b"0" * 65,
        b"0" * 66,
        b"g" * 64,
        b" " + b"0" * 63,
        b"0" * 32 + b" " + b"0" * 31,
        b"00 " * 21 + b"0",
        b"\xb2" * 64,
        "\u0663".encode() * 32,
    ],
)
def test_key_refuses(value: bytes) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        grammar.key(value)


@pytest.mark.parametrize(
    ("value", "number"), [(b"0", 0), (b"65535", 65535), (b"000051820", 51820), (b"00", 0)]
)
def test_port_takes(value: bytes, number: int) -> None:
    assert grammar.port(value) == number


BAD_NUMBERS = [
    b"",
    b" ",
    b" 1",
    b"1 ",
    b"+1",
    b"-1",
    b"-0",
    b"1_0",
    b"0x10",
    b"1e3",
    b"1.0",
    b"off",
    "\u0661".encode(),
    "\u00b2".encode(),
    b"1\x00",
    b"1\n",
    b"9" * 5000,
    b"0" * 5000,
]


@pytest.mark.parametrize("value", [*BAD_NUMBERS, b"65536", b"4294967296"])
def test_port_and_keepalive_refuse(value: bytes) -> None:
    with pytest.raises(ValueError, match="65535"):
        grammar.port(value)
    with pytest.raises(ValueError, match="65535"):
        grammar.keepalive_seconds(value)


def test_fwmark_range() -> None:
    assert grammar.fwmark(b"4294967295") == 4294967295
    for value in [*BAD_NUMBERS, b"4294967296"]:
        with pytest.raises(ValueError, match="4294967295"):
            grammar.fwmark(value)


@pytest.mark.parametrize("value", [b"", b"false", b"1", b"TRUE", b"True", b"true ", b"yes"])
def test_only_true_is_true(value: bytes) -> None:
    grammar.require_true(b"true")
    with pytest.raises(ValueError, match="true"):
        grammar.require_true(value)


@pytest.mark.parametrize("value", [b"", b"0", b"2", b"01", b"1 "])
def test_only_version_1(value: bytes) -> None:
    grammar.require_version(b"1")
    with pytest.raises(ValueError, match="1"):
        grammar.require_version(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"192.0.2.1:51820", Endpoint("192.0.2.1", 51820)),
        (b"0.0.0.0:0", Endpoint("0.0.0.0", 0)),
        (b"255.255.255.255:0065535", Endpoint("255.255.255.255", 65535)),
        (b"[2001:DB8:0:0::1]:1", Endpoint("2001:db8::1", 1)),
        (b"[::]:1", Endpoint("::", 1)),
        (b"[fe80::1%eth0]:51820", Endpoint("fe80::1", 51820, 7)),
        (b"[fe80::1%12]:51820", Endpoint("fe80::1", 51820, 12)),
        (b"[abcd:23::33%2]:51820", Endpoint("abcd:23::33", 51820, 2)),
    ],
)
def test_endpoint_takes(value: bytes, expected: Endpoint) -> None:
    assert grammar.endpoint(value, resolve) == expected


def test_mapped_endpoint_stays_ipv6() -> None:
    assert grammar.endpoint(b"[::ffff:192.0.2.1]:5", resolve).is_ipv6


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b":51820",
        b"192.0.2.1",
        b"192.0.2.1:",
        b"192.0.2.1:65536",
        b"192.0.2.1:-1",
        b"192.0.2.1:+1",
        b"192.0.2.1: 1",
        b" 192.0.2.1:1",
        b"192.0.2.1:1\n",
        b"192.0.2.01:1",
        b"192.0.2.256:1",
        b"192.0.2:1",
        b"3221225985:1",
        b"[192.0.2.1]:1",
        b"192.0.2.1%eth0:1",
        b"2001:db8::1:51820",
        b"[2001:db8::1]",
        b"[2001:db8::1]51820",
        b"[2001:db8::1]:",
        b"[2001:db8::1]:65536",
        b"[2001:db8::1::]:1",
        b"[2001:db8::12345]:1",
        b"[]:1",
        b"[fe80::1%]:1",
        b"[fe80::1%missing]:1",
        b"[fe80::1%refused]:1",
        b"[fe80::1%eth0%eth0]:1",
        b"[fe80::1%en0/x]:1",
        b"[fe80::1%4294967296]:1",
        b"[fe80::1%abcdefghijklmnop]:1",
        b"[%eth0]:1",
        b"example.com:51820",
        b"localhost:51820",
        "\uff11.2.3.4:5".encode(),
    ],
)
def test_endpoint_refuses(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"endpoint|a\.b\.c\.d:port|decimal"):
        grammar.endpoint(value, resolve)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"10.1.2.3/8", "10.0.0.0/8"),
        (b"0.0.0.0/0", "0.0.0.0/0"),
        (b"255.255.255.255/0", "0.0.0.0/0"),
        (b"192.0.2.129/25", "192.0.2.128/25"),
        (b"192.0.2.1/32", "192.0.2.1/32"),
        (b"2001:DB8::FFFF/112", "2001:db8::/112"),
        (b"::/0", "::/0"),
        (b"2001:db8::1/128", "2001:db8::1/128"),
        (b"2001:db8::1/99", "2001:db8::/99"),
    ],
)
def test_allowed_ip_masks_host_bits(value: bytes, shown: str) -> None:
    added = grammar.allowed_ip(value)
    assert (str(added.prefix), added.remove) == (shown, False)
    removed = grammar.allowed_ip(b"-" + value)
    assert (str(removed.prefix), removed.remove) == (shown, True)


def test_mapped_allowed_ip_stays_ipv6() -> None:
    expected = Prefix(bytes(10) + b"\xff\xff\x01\x02\x03\x04", 128)
    assert grammar.prefix(b"::ffff:1.2.3.4/128") == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-",
        b"10.0.0.0",
        b"10.0.0.0/",
        b"/8",
        b"10.0.0.0/08",
        b"10.0.0.0/+8",
        b"10.0.0.0/-8",
        b"10.0.0.0/33",
        b"10.0.0.0/255.0.0.0",
        b"10.0.0.0/0.255.255.255",
        b"10.0.0/8",
        b"010.0.0.0/8",
        b"10.0.0.256/8",
        b"10.0.0.0/8 ",
        b" 10.0.0.0/8",
        b"10.0.0.0/8/8",
        b"10.0.0.0/8,10.0.0.0/8",
        b"+10.0.0.0/8",
        b"--10.0.0.0/8",
        b"fe80::%eth0/64",
        b"fe80::/064",
        b"fe80::/129",
        b"fe80::/",
        b"fe80::",
        b"[fe80::]/64",
        b"fe80:/64",
        b"1:2:3:4:5:6:7:8:9/64",
        b"::ffff:1.2.3.04/128",
        b"any/0",
    ],
)
def test_allowed_ip_refuses(value: bytes) -> None:
    with pytest.raises(ValueError, match="prefix length"):
        grammar.allowed_ip(value)


@given(st.binary(max_size=60) | st.text(string.hexdigits + ":.[]%/-0", max_size=40))
def test_nothing_but_value_error(value: bytes | str) -> None:
    octets = value.encode() if isinstance(value, str) else value
    for parse in (grammar.key, grammar.port, grammar.fwmark, grammar.allowed_ip):
        with contextlib.suppress(ValueError):
            parse(octets)
    with contextlib.suppress(ValueError):
        grammar.endpoint(octets, resolve)
