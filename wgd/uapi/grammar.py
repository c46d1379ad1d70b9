"""The values of the configuration protocol: bytes of one line in, a typed value out (sans-IO).

Strict ASCII throughout, because Python's own parsers (`int`, `bytes.fromhex`, `ip_network`) take
blanks, signs, underscores, netmasks and zones that no other WireGuard takes. Every function raises
ValueError whose text completes "must be …"; it never holds the value, which may be a secret.

Source: the cross-platform interface page of wireguard.com, as wireguard-go understands it.
"""

import binascii
import re
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import AllowedIpChange
from wgd.constants import KEY_SIZE

ResolveZone = Callable[[str], int]
"""Maps an interface name to its index; raises OSError or ValueError for one that is not there."""

MAX_PORT: Final = 2**16 - 1
MAX_FWMARK: Final = 2**32 - 1
MAX_KEEPALIVE_SECONDS: Final = 2**16 - 1
MAX_INTERFACE_INDEX: Final = 2**32 - 1
# Leading zeros are allowed, but not kilobytes of them.
MAX_DECIMAL_DIGITS: Final = 64

_OCTET: Final = rb"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = rb"\.".join([_OCTET] * 4)
# Only the characters and a bounded length; `IPv6Address` judges the rest. It would take a zone too.
_IPV6: Final = rb"([0-9a-fA-F:.]{2,45})"
_ENDPOINT_V4: Final = re.compile(rb"(" + _IPV4.replace(b"(", b"(?:") + rb"):([0-9]+)")
_ENDPOINT_V6: Final = re.compile(rb"\[" + _IPV6 + rb"(?:%([!-$&-.0-\\^-~]{1,15}))?\]:([0-9]+)")
_PREFIX_V4: Final = re.compile(_IPV4 + rb"/(3[0-2]|[12]?[0-9])")
_PREFIX_V6: Final = re.compile(_IPV6 + rb"/(12[0-8]|1[01][0-9]|[1-9]?[0-9])")

_ENDPOINT_FORM: Final = "a.b.c.d:port, [v6]:port or [v6%zone]:port (host names are not looked up)"
_PREFIX_FORM: Final = "an address, a slash and a prefix length, such as 10.0.0.0/8 or fd00::/8"


def key(value: bytes) -> bytes:
    """Return the 32 bytes that 64 hexadecimal digits (either case) stand for."""
    if len(value) != 2 * KEY_SIZE:
        raise ValueError("64 hexadecimal digits")
    try:
        return binascii.unhexlify(value)
    except binascii.Error:
        raise ValueError("64 hexadecimal digits") from None


def decimal(value: bytes, maximum: int) -> int:
    """Return a plain decimal number in 0..`maximum`: leading zeros pass, signs do not."""
    if value.isdigit() and len(value) <= MAX_DECIMAL_DIGITS:
        number = int(value)
        if number <= maximum:
            return number
    raise ValueError(f"a decimal number in 0..{maximum}")


def port(value: bytes) -> int:
    """Return a UDP port; 0 is allowed (what it means depends on the line)."""
    return decimal(value, MAX_PORT)


def fwmark(value: bytes) -> int:
    """Return a firewall mark; 0 means none."""
    return decimal(value, MAX_FWMARK)


def keepalive_seconds(value: bytes) -> int:
    """Return a persistent keepalive interval in seconds; 0 means off."""
    return decimal(value, MAX_KEEPALIVE_SECONDS)


def require_true(value: bytes) -> None:
    """Accept the only boolean there is: the word `true`."""
    if value != b"true":
        raise ValueError("the word true")


def require_version(value: bytes) -> None:
    """Accept the only version of the protocol there is: `1`."""
    if value != b"1":
        raise ValueError("1")


def endpoint(value: bytes, resolve_zone: ResolveZone) -> Endpoint:
    """Return the endpoint of `a.b.c.d:port`, `[v6]:port` or `[v6%zone]:port`.

    A zone of digits is an interface index; any other goes through `resolve_zone`.
    """
    match = _ENDPOINT_V4.fullmatch(value)
    if match is not None:
        host, digits = match.groups()
        return Endpoint(host.decode("ascii"), port(digits))
    match = _ENDPOINT_V6.fullmatch(value)
    if match is None:
        raise ValueError(_ENDPOINT_FORM)
    host, zone, digits = match.groups()
    scope_id = 0 if zone is None else _zone_index(zone, resolve_zone)
    return Endpoint(str(_ipv6(host, _ENDPOINT_FORM)), port(digits), scope_id)


def prefix(value: bytes) -> Prefix:
    """Return the prefix of `address/length`, host bits masked off; IPv4-mapped IPv6 stays IPv6."""
    match = _PREFIX_V4.fullmatch(value)
    if match is not None:
        a, b, c, d, length = match.groups()
        return Prefix.of(bytes((int(a), int(b), int(c), int(d))), int(length))
    match = _PREFIX_V6.fullmatch(value)
    if match is None:
        raise ValueError(_PREFIX_FORM)
    host, length = match.groups()
    return Prefix.of(_ipv6(host, _PREFIX_FORM).packed, int(length))


def allowed_ip(value: bytes) -> AllowedIpChange:
    """Return the change of `address/length`, or of `-address/length`, which takes away."""
    if value.startswith(b"-"):
        return AllowedIpChange(prefix(value[1:]), remove=True)
    return AllowedIpChange(prefix(value))


def _ipv6(host: bytes, form: str) -> IPv6Address:
    try:
        return IPv6Address(host.decode("ascii"))
    except ValueError:
        raise ValueError(form) from None


def _zone_index(zone: bytes, resolve_zone: ResolveZone) -> int:
    if zone.isdigit():
        return decimal(zone, MAX_INTERFACE_INDEX)
    try:
        return resolve_zone(zone.decode("ascii"))
    except (OSError, ValueError):
        raise ValueError("an endpoint whose zone is an interface of this machine") from None
