"""The values people write and read: keys, ports, marks, prefixes and endpoints, to and fro.

They are written as `wg` writes them and read as leniently as `wg` reads them: a port or a host may
be a name, a mark hexadecimal, an allowed IP a bare address. Every reader raises ValueTextError. A
text that could be a key by mistake is never repeated in it.

Only `endpoint` and `port` may ask the resolver.
"""

import base64
import binascii
import re
import socket
from collections.abc import Callable, Mapping
from typing import Final

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import NO_KEY, AllowedIpChange
from wgd.constants import KEY_SIZE
from wgd.ctl.errors import ValueTextError
from wgd.shown import shown

MAX_PORT: Final = 2**16 - 1
MAX_FWMARK: Final = 2**32 - 1
MAX_KEEPALIVE_SECONDS: Final = 2**16 - 1

RETRIES_VARIABLE: Final = "WG_ENDPOINT_RESOLUTION_RETRIES"
DEFAULT_RETRIES: Final = 15
FIRST_RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 20.0
RETRY_GROWTH: Final = 1.2

_DECIMAL: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_HEXADECIMAL: Final = re.compile(r"0x([0-9a-fA-F]{1,16})", re.ASCII)
# For these there is nothing to wait for: the name does not exist, or is not one.
_PERMANENT: Final = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_FAIL", "EAI_NODATA", "EAI_SERVICE", "EAI_FAMILY")
    if hasattr(socket, name)
)


# -- as people read them ---------------------------------------------------------------------------


def key_text(key: bytes) -> str:
    """Return the base64 of 32 bytes, or `(none)` for all zeros."""
    return base64_of(key) if key != NO_KEY else "(none)"


def base64_of(key: bytes) -> str:
    """Return the base64 of 32 bytes, whatever they are."""
    return base64.b64encode(key).decode("ascii")


def fwmark_text(fwmark: int) -> str:
    """Return a firewall mark in hexadecimal, or `off` for 0."""
    return f"0x{fwmark:x}" if fwmark else "off"


def keepalive_text(seconds: int) -> str:
    """Return a persistent keepalive interval in seconds, or `off` for 0."""
    return str(seconds) if seconds else "off"


def prefix_address(prefix: Prefix) -> str:
    """Return a prefix's address as the C library writes it: `::ffff:1.2.3.4` has its dots."""
    family = socket.AF_INET if len(prefix.address) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, prefix.address)


def prefix_text(prefix: Prefix) -> str:
    """Return `address/length`."""
    return f"{prefix_address(prefix)}/{prefix.length}"


def endpoint_text(endpoint: Endpoint | None) -> str:
    """Return `host:port`, `[host]:port` or `[host%zone]:port` with the zone's name, or `(none)`."""
    if endpoint is None:
        return "(none)"
    if not endpoint.is_ipv6:
        return str(endpoint)
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV | socket.NI_DGRAM
    address = (endpoint.host, endpoint.port, 0, endpoint.scope_id)
    try:
        host, port = socket.getnameinfo(address, flags)
    except OSError:
        return str(endpoint)
    return f"[{host}]:{port}"


# -- as people write them --------------------------------------------------------------------------


def key(text: str) -> bytes:
    """Return the 32 bytes of exactly 44 characters of base64; the text is never repeated."""
    try:
        decoded = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        decoded = b""
    # Encoded again, because the decoder ignores the last character's surplus bits.
    if len(decoded) != KEY_SIZE or base64_of(decoded) != text:
        raise ValueTextError("a key is 44 characters of base64, as `wgdctl genkey` writes it")
    return decoded


def port(text: str) -> int:
    """Return a UDP port given by its number or the name of a service."""
    if _DECIMAL.fullmatch(text) and int(text) <= MAX_PORT:
        return int(text)
    # Digits are never a service: the C library would take the number modulo 65536.
    if text and not text.strip().lstrip("+-").isdigit():
        try:
            return int(_lookup(None, text)[1])
        except (socket.gaierror, UnicodeError):  # UnicodeError: what was no UTF-8
            pass
    raise ValueTextError(f"a port is a number in 0..{MAX_PORT}, not {shown(text)}")


def fwmark(text: str) -> int:
    """Return a firewall mark: decimal, hexadecimal after `0x`, or `off`."""
    if text.lower() == "off":
        return 0
    match = _HEXADECIMAL.fullmatch(text)
    if match is not None:
        number = int(match[1], 16)
    elif _DECIMAL.fullmatch(text):
        number = int(text)
    else:
        number = MAX_FWMARK + 1
    if number > MAX_FWMARK:
        raise ValueTextError(f"a fwmark is off or a number in 0..0xffffffff, not {shown(text)}")
    return number


def keepalive_seconds(text: str) -> int:
    """Return a persistent keepalive interval in seconds; `off` is 0."""
    if text.lower() == "off":
        return 0
    if _DECIMAL.fullmatch(text) and int(text) <= MAX_KEEPALIVE_SECONDS:
        return int(text)
    raise ValueTextError(
        f"a persistent keepalive is off or a number of seconds in 1..{MAX_KEEPALIVE_SECONDS}, "
        f"not {shown(text)}"
    )


def allowed_ips(text: str, warn: Callable[[str], None]) -> tuple[bool, list[AllowedIpChange]]:
    """Return whether a comma-separated list replaces what is there, and its changes.

    It replaces unless an element begins with `+` (add it) or `-` (take it away). The empty text is
    the empty list. `warn` is called with a line for an address with bits beyond its prefix length.
    """
    text = "".join(text.split())
    if not text:
        return True, []
    elements = text.split(",")
    replaces = not any(element.startswith(("+", "-")) for element in elements)
    return replaces, [_allowed_ip(element, warn) for element in elements]


def _allowed_ip(element: str, warn: Callable[[str], None]) -> AllowedIpChange:
    remove = element.startswith("-")
    text = element[1:] if element.startswith(("+", "-")) else element
    host, slash, mask = text.partition("/")
    address = _address(host)
    bits = 8 * len(address) if address is not None else 0
    if slash and _DECIMAL.fullmatch(mask) and int(mask) <= bits:
        length = int(mask)
    elif not slash:
        length = bits
    else:
        address = None
    if address is None:
        raise ValueTextError(
            "an allowed IP is an address with a prefix length, such as 10.0.0.0/8 or fd00::/8, "
            f"not {shown(element)}"
        )
    prefix = Prefix.of(address, length)
    if prefix.address != address:
        warn(f"AllowedIP has nonzero host part: {text}, taken as {prefix_text(prefix)}")
    return AllowedIpChange(prefix, remove)


def _address(host: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except (OSError, ValueError):  # ValueError: a NUL or what is no UTF-8
        return None


class EndpointReader:
    """Reads endpoints, and looks names up: again and again if the resolver says it may help.

    `WG_ENDPOINT_RESOLUTION_RETRIES` (a number or `infinity`) says how often, with growing pauses,
    each of them told through `warn`.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        warn: Callable[[str], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._retries = _retries(environment.get(RETRIES_VARIABLE, ""))
        self._warn = warn
        self._sleep = sleep

    def read(self, text: str) -> Endpoint:
        """Return the endpoint of `host:port` or `[host]:port`; raises ValueTextError."""
        host, service = _split(text)
        number = port(service)
        seconds = FIRST_RETRY_SECONDS
        tries = 0
        while True:
            try:
                return _endpoint(_lookup(host, str(number)))
            except (OSError, UnicodeError) as error:
                permanent = not isinstance(error, OSError) or error.errno in _PERMANENT
                reason = (error.strerror if isinstance(error, OSError) else "") or "no such name"
                if permanent or (self._retries is not None and tries >= self._retries):
                    raise ValueTextError(
                        f"the host of endpoint {shown(text)} was not found: {reason}"
                    ) from None
                self._warn(f"{reason}: {shown(text)}. Trying again in {seconds:.2f} seconds...")
            tries += 1
            self._sleep(seconds)
            seconds = min(seconds * RETRY_GROWTH, MAX_RETRY_SECONDS)


def _retries(text: str) -> int | None:
    """Return how often to try again, None for ever."""
    if text == "infinity":
        return None
    return int(text) if _DECIMAL.fullmatch(text) else DEFAULT_RETRIES


def _split(text: str) -> tuple[str, str]:
    """Return host and port of an endpoint; of an IPv6 address without brackets the last part."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        colon, service = rest[:1], rest[1:]
    else:
        host, colon, service = text.rpartition(":")
    if colon != ":" or not service or not host:
        raise ValueTextError(f"an endpoint is host:port or [IPv6 address]:port, not {shown(text)}")
    return host, service


def _lookup(host: str | None, service: str) -> tuple[str, int, int]:
    """Return address, port and scope id of the first answer; raises OSError, UnicodeError."""
    flags = socket.AI_PASSIVE if host is None else 0
    answers = socket.getaddrinfo(
        host, service, socket.AF_UNSPEC, socket.SOCK_DGRAM, socket.IPPROTO_UDP, flags
    )
    address = answers[0][4]
    return str(address[0]), int(address[1]), int(address[3]) if len(address) == 4 else 0


def _endpoint(found: tuple[str, int, int]) -> Endpoint:
    host, number, scope_id = found
    return Endpoint(host.partition("%")[0], number, scope_id)
