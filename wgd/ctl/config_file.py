"""`wg`'s configuration format: read for setconf, addconf and syncconf, written for showconf.

Lines of `Key = value` under `[Interface]` and `[Peer]`. As for `wg`, blanks count nowhere, not even
inside a word, `#` begins a comment, case counts in values only, several `AllowedIPs` add up, of
other keys the last one counts, and every `[Peer]` replaces the allowed IPs the peer had.

An error names the line and, where it looks like one, the key; never a value that may be a secret.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from wgd.addresses import Endpoint
from wgd.configuration import NO_KEY, AllowedIpChange, DeviceChange, DeviceState, PeerChange
from wgd.ctl import values
from wgd.ctl.errors import ConfigFileError, ValueTextError
from wgd.uapi.client import Device, Peer

ReadEndpoint = Callable[[str], Endpoint | None]
Warn = Callable[[str], None]
OnLine = Callable[[int, int], None]
"""Told how many lines of how many have been read."""

_WG_QUICK_KEYS: Final = frozenset(
    ("address", "dns", "mtu", "table", "preup", "postup", "predown", "postdown", "saveconfig")
)
# Shorter than any key in base64, so that a secret without its name is not taken for a name.
_NAME: Final = re.compile(r"[A-Za-z]{1,24}")


def parse(
    text: bytes,
    *,
    read_endpoint: ReadEndpoint,
    warn: Warn,
    on_line: OnLine = lambda _, __: None,
    keep_host_names: bool = False,
) -> DeviceChange:
    """Return what a configuration file says; what it does not say is None.

    With `keep_host_names`, an endpoint given by a name has that in `endpoint_host`, and
    `read_endpoint` may return None for a name that is not to be looked up now. Raises
    ConfigFileError.
    """
    reader = _Reader(read_endpoint, warn, keep_host_names=keep_host_names)
    lines = text.split(b"\n")
    for number, line in enumerate(lines, 1):
        on_line(number, len(lines))
        # bytes, because `str` would take characters for blanks that `wg` does not
        cleaned = b"".join(line.partition(b"\0")[0].partition(b"#")[0].split())
        if not cleaned:
            continue
        try:
            reader.take(cleaned.decode("utf-8", "replace"), number)
        except ValueTextError as error:
            raise ConfigFileError(f"line {number}: {error}") from None
    return reader.finish()


def whole(change: DeviceChange) -> DeviceChange:
    """Return a change that says what a whole device is to be: zero for all that is left out."""
    return replace(
        change,
        private_key=change.private_key if change.private_key is not None else NO_KEY,
        listen_port=change.listen_port or 0,
        fwmark=change.fwmark or 0,
        replace_peers=True,
    )


def render(device: Device | DeviceState) -> str:
    """Return a device as a configuration file."""
    return "\n".join(["".join(_interface_lines(device))] + [_peer_text(p) for p in device.peers])


def names_host(endpoint: str) -> bool:
    """Whether the host of an endpoint as people write it is a name, not an address."""
    host = endpoint.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


# -- reading ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _PeerSection:
    line_number: int
    public_key: bytes | None = None
    preshared_key: bytes | None = field(default=None, repr=False)
    endpoint: Endpoint | None = None
    endpoint_host: str | None = None
    persistent_keepalive_seconds: int | None = None
    replace_allowed_ips: bool = True
    allowed_ips: list[AllowedIpChange] = field(default_factory=list)

    def change(self) -> PeerChange:
        if self.public_key is None:
            raise ConfigFileError(f"line {self.line_number}: this [Peer] has no PublicKey")
        return PeerChange(
            self.public_key,
            preshared_key=self.preshared_key,
            endpoint=self.endpoint,
            endpoint_host=self.endpoint_host,
            persistent_keepalive_seconds=self.persistent_keepalive_seconds,
            replace_allowed_ips=self.replace_allowed_ips,
            allowed_ips=tuple(self.allowed_ips),
        )


class _Reader:
    """Takes lines without blanks and comments."""

    def __init__(self, read_endpoint: ReadEndpoint, warn: Warn, *, keep_host_names: bool) -> None:
        self._read_endpoint = read_endpoint
        self._keep_host_names = keep_host_names
        self._warn = warn
        self._private_key: bytes | None = None
        self._listen_port: int | None = None
        self._fwmark: int | None = None
        self._peers: list[_PeerSection] = []
        self._section: _PeerSection | str | None = None

    def take(self, line: str, number: int) -> None:
        """Take one line. Raises ValueTextError."""
        match line.lower():
            case "[interface]":
                self._section = "interface"
                return
            case "[peer]":
                self._section = _PeerSection(number)
                self._peers.append(self._section)
                return
        name, _, value = line.partition("=")
        if value and isinstance(self._section, _PeerSection):
            is_known = self._take_peer(self._section, name.lower(), value)
        else:
            is_known = bool(value and self._section) and self._take_device(name.lower(), value)
        if not is_known:
            raise ValueTextError(self._complaint(name, value))

    def finish(self) -> DeviceChange:
        """Return what the lines said. Raises ConfigFileError."""
        return DeviceChange(
            private_key=self._private_key,
            listen_port=self._listen_port,
            fwmark=self._fwmark,
            peers=tuple(section.change() for section in self._peers),
        )

    def _take_device(self, name: str, value: str) -> bool:
        match name:
            case "privatekey":
                self._private_key = values.key(value)
            case "listenport":
                self._listen_port = values.port(value)
            case "fwmark":
                self._fwmark = values.fwmark(value)
            case _:
                return False
        return True

    def _take_peer(self, peer: _PeerSection, name: str, value: str) -> bool:
        match name:
            case "publickey":
                peer.public_key = values.key(value)
            case "presharedkey":
                peer.preshared_key = values.key(value)
            case "endpoint":
                peer.endpoint = self._read_endpoint(value)
                is_name = self._keep_host_names and names_host(value)
                peer.endpoint_host = value if is_name else None
            case "persistentkeepalive":
                peer.persistent_keepalive_seconds = values.keepalive_seconds(value)
            case "allowedips":
                replaces, changes = values.allowed_ips(value, self._warn)
                peer.replace_allowed_ips = peer.replace_allowed_ips and replaces
                peer.allowed_ips += changes
            case _:
                return False
        return True

    def _complaint(self, name: str, value: str) -> str:
        if name.lower() in _WG_QUICK_KEYS:
            return f"{name} is for wg-quick(8): take it out, as `wg-quick strip` does"
        shown = f"{name} " if _NAME.fullmatch(name) else ""
        if shown and not value:
            return f"{shown}has no value"
        if self._section is None:
            return f"{shown or 'this '}is before the first [Interface] or [Peer]"
        section = "[Peer]" if isinstance(self._section, _PeerSection) else "[Interface]"
        return f"{shown or 'this line '}is no setting of {section}"


# -- writing ---------------------------------------------------------------------------------------


def _interface_lines(device: Device | DeviceState) -> Iterator[str]:
    yield "[Interface]\n"
    if device.listen_port:
        yield f"ListenPort = {device.listen_port}\n"
    if device.fwmark:
        yield f"FwMark = {values.fwmark_text(device.fwmark)}\n"
    if device.private_key != NO_KEY:
        yield f"PrivateKey = {values.base64_of(device.private_key)}\n"
    if not device.peers:
        yield "\n"


def _peer_text(peer: Peer) -> str:
    lines = ["[Peer]", f"PublicKey = {values.base64_of(peer.public_key)}"]
    if peer.preshared_key != NO_KEY:
        lines.append(f"PresharedKey = {values.base64_of(peer.preshared_key)}")
    if peer.allowed_ips:
        lines.append(f"AllowedIPs = {', '.join(map(values.prefix_text, peer.allowed_ips))}")
    if peer.endpoint is not None:
        lines.append(f"Endpoint = {values.endpoint_text(peer.endpoint)}")
    if peer.persistent_keepalive_seconds:
        lines.append(f"PersistentKeepalive = {peer.persistent_keepalive_seconds}")
    return "\n".join(lines) + "\n"
