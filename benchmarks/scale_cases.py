"""What is configured: so many peers with one allowed IP each, or few with very many."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

KNOWN_PEERS: Final = 128
"""Peers that shake hands while others are configured; 65,536 is the most in all."""


@dataclass(frozen=True)
class Case:
    """So many peers that share so many allowed IPs, /32 of 10.0.0.0/8, evenly."""

    name: str
    peers: int
    allowed_ips: int

    def make(self) -> "Configuration":
        """Return one with new keys."""
        return Configuration(self, tuple(os.urandom(32) for _ in range(self.peers)))


@dataclass(frozen=True)
class Configuration:
    """A case with keys."""

    case: Case
    public_keys: tuple[bytes, ...]

    def request(self) -> bytes:
        """Return the `set` of the UAPI that adds it to what is there."""
        parts = ["set=1\n"]
        for number, (public_key, allowed_ips) in enumerate(self._peers()):
            parts.append(f"public_key={public_key.hex()}\nendpoint={_endpoint(number)}\n")
            parts += [f"allowed_ip={each}\n" for each in allowed_ips]
        parts.append("\n")
        return "".join(parts).encode()

    def file(self, private_key: bytes, port: int) -> str:
        """Return the file for `wg setconf`, which makes it all there is."""
        key = base64.b64encode(private_key).decode()
        parts = [f"[Interface]\nPrivateKey = {key}\nListenPort = {port}\n"]
        for number, (public_key, allowed_ips) in enumerate(self._peers()):
            key = base64.b64encode(public_key).decode()
            parts.append(f"[Peer]\nPublicKey = {key}\nEndpoint = {_endpoint(number)}\n")
            parts += [f"AllowedIPs = {each}\n" for each in allowed_ips]
        return "".join(parts)

    def _peers(self) -> Iterator[tuple[bytes, list[str]]]:
        each = self.case.allowed_ips // self.case.peers
        for number, public_key in enumerate(self.public_keys):
            yield public_key, [_address(number * each + n) for n in range(each)]


def _endpoint(number: int) -> str:
    return f"127.0.0.1:{1024 + number % 60_000}"


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32"


CASES: Final = {
    case.name: case
    for case in (
        Case("1k", 1_000, 1_000),
        Case("10k", 10_000, 10_000),
        Case("65k", 65_536 - KNOWN_PEERS, 65_536 - KNOWN_PEERS),
        Case("1M-spread", 1_000, 1_000_000),
        Case("1M-one", 1, 1_000_000),
    )
}
QUICK: Final = (Case("quick", 300, 300), Case("quick-one", 1, 5_000))
