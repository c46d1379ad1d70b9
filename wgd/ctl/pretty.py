"""`show` for people: one block a device, one a peer, in `wg`'s words, order and colours.

Pure text: the time is an argument, and whether there is a terminal is the caller's to know.
"""

import re
from collections.abc import Iterator
from typing import Final

from wgd.configuration import NO_KEY
from wgd.constants import SECOND_NS
from wgd.ctl.values import base64_of, endpoint_text, fwmark_text, prefix_address
from wgd.uapi.client import Device, Peer

_RESET: Final = "\x1b[0m"
_BOLD: Final = "\x1b[1m"
_RED: Final = "\x1b[31m"
_GREEN: Final = "\x1b[32m"
_YELLOW: Final = "\x1b[33m"
_CYAN: Final = "\x1b[36m"
_ESCAPE: Final = re.compile(r"\x1b\[[0-9]+m")

_TIME_UNITS: Final = (
    ("year", 365 * 86_400),
    ("day", 86_400),
    ("hour", 3_600),
    ("minute", 60),
    ("second", 1),
)
_SIZE_UNITS: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def pretty(device: Device, *, now_seconds: int, hides_keys: bool, is_coloured: bool) -> str:
    """Return the lines of a device and its peers, the latest handshake first.

    `now_seconds` is Unix time; `hides_keys` puts `(hidden)` for private and preshared keys.
    """
    blocks = ["".join(_device(device, hides_keys))]
    blocks += [
        "".join(_peer(peer, now_seconds, hides_keys))
        for peer in sorted(device.peers, key=lambda peer: peer.last_handshake_ns, reverse=True)
    ]
    text = "\n".join(blocks)
    return text if is_coloured else _ESCAPE.sub("", text)


def _device(device: Device, hides_keys: bool) -> Iterator[str]:
    yield f"{_RESET}{_GREEN}{_BOLD}interface{_RESET}: {_GREEN}{device.name}{_RESET}\n"
    if device.public_key != NO_KEY:
        yield _line("public key", base64_of(device.public_key))
    if device.private_key != NO_KEY:
        yield _line("private key", _secret(device.private_key, hides_keys))
    if device.listen_port:
        yield _line("listening port", str(device.listen_port))
    if device.fwmark:
        yield _line("fwmark", fwmark_text(device.fwmark))


def _peer(peer: Peer, now_seconds: int, hides_keys: bool) -> Iterator[str]:
    key = base64_of(peer.public_key)
    yield f"{_YELLOW}{_BOLD}peer{_RESET}: {_YELLOW}{key}{_RESET}\n"
    if peer.preshared_key != NO_KEY:
        yield _line("preshared key", _secret(peer.preshared_key, hides_keys))
    if peer.endpoint is not None:
        yield _line("endpoint", endpoint_text(peer.endpoint))
    slash = f"{_CYAN}/{_RESET}"
    prefixes = [f"{prefix_address(prefix)}{slash}{prefix.length}" for prefix in peer.allowed_ips]
    yield _line("allowed ips", ", ".join(prefixes) or "(none)")
    handshake_seconds = peer.last_handshake_ns // SECOND_NS
    if handshake_seconds:
        yield _line("latest handshake", _ago(now_seconds - handshake_seconds))
    if peer.received_bytes or peer.sent_bytes:
        received, sent = _size(peer.received_bytes), _size(peer.sent_bytes)
        yield _line("transfer", f"{received} received, {sent} sent")
    if peer.persistent_keepalive_seconds:
        interval = _duration(peer.persistent_keepalive_seconds)
        yield _line("persistent keepalive", f"every {interval}")


def _line(name: str, value: str) -> str:
    return f"  {_BOLD}{name}{_RESET}: {value}\n"


def _secret(key: bytes, hides_keys: bool) -> str:
    return "(hidden)" if hides_keys else base64_of(key)


def _ago(seconds: int) -> str:
    if seconds == 0:
        return "Now"
    if seconds < 0:
        warning = "System clock wound backward; connection problems may ensue."
        return f"({_RED}{warning}{_RESET})"
    return f"{_duration(seconds)} ago"


def _duration(seconds: int) -> str:
    parts = []
    for unit, size in _TIME_UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {_CYAN}{unit}{'s' if count > 1 else ''}{_RESET}")
    return ", ".join(parts)


def _size(count: int) -> str:
    for size, unit in _SIZE_UNITS:
        if count >= size:
            return f"{count / size:.2f} {_CYAN}{unit}{_RESET}"
    return f"{count} {_CYAN}B{_RESET}"
