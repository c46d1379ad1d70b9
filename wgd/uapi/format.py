"""The answers of the configuration protocol, as bytes (sans-IO).

Source: the cross-platform interface page of wireguard.com, in the order that wireguard-go uses.
Nothing is added to it: several clients refuse a key they do not know. What wgd has to say beyond it
is the answer to another question, `status=1` (docs/uapi-extensions.md).
"""

from collections.abc import Iterator, Sequence
from typing import Final

from wgd.configuration import NO_KEY, DeviceState, PeerState
from wgd.constants import SECOND_NS
from wgd.status import DeviceStatus, json_parts

PEERS_PER_PART: Final = 128
LINES_PER_PART: Final = 4096
"""How many peers are looked at, and how many of their allowed IPs rendered, before the caller may
do something else (a few milliseconds)."""


def end_of_answer(signed_errno: int) -> bytes:
    """Return what ends every answer, and is the whole answer to a change: 0 for success."""
    return b"errno=%d\n\n" % signed_errno


def get_answer(state: DeviceState) -> Iterator[bytes]:
    """Yield the answer to a get in parts, which the caller joins and writes at once.

    Lines are `key=value` with exactly one `=`, keys in lower-case hexadecimal digits.
    """
    device = ""
    if state.private_key != NO_KEY:
        device += f"private_key={state.private_key.hex()}\n"
    if state.listen_port:
        device += f"listen_port={state.listen_port}\n"
    if state.fwmark:
        device += f"fwmark={state.fwmark}\n"
    yield device.encode("ascii")
    for first in range(0, len(state.peers), PEERS_PER_PART):
        yield from _peers(state.peers[first : first + PEERS_PER_PART])
    yield end_of_answer(0)


def status_answer(status: DeviceStatus) -> Iterator[bytes]:
    """Yield the answer to a status in parts, which the caller joins and writes at once."""
    yield b"status="
    for part in json_parts(status):
        yield part.encode("ascii")
    yield b"\n"
    yield end_of_answer(0)


def _peers(peers: Sequence[PeerState]) -> Iterator[bytes]:
    lines: list[str] = []
    for peer in peers:
        lines.append(_peer(peer))
        for first in range(0, len(peer.allowed_ips), LINES_PER_PART):
            prefixes = peer.allowed_ips[first : first + LINES_PER_PART]
            lines += [f"allowed_ip={prefix}\n" for prefix in prefixes]
            if len(lines) >= LINES_PER_PART:
                yield "".join(lines).encode("ascii")
                lines.clear()
    yield "".join(lines).encode("ascii")


def _peer(peer: PeerState) -> str:
    seconds, nanoseconds = divmod(peer.last_handshake_ns, SECOND_NS)
    endpoint = f"endpoint={peer.endpoint}\n" if peer.endpoint is not None else ""
    return (
        f"public_key={peer.public_key.hex()}\n"
        f"preshared_key={peer.preshared_key.hex()}\n"
        "protocol_version=1\n"
        f"{endpoint}"
        f"last_handshake_time_sec={seconds}\n"
        f"last_handshake_time_nsec={nanoseconds}\n"
        f"tx_bytes={peer.sent_bytes}\n"
        f"rx_bytes={peer.received_bytes}\n"
        f"persistent_keepalive_interval={peer.persistent_keepalive_seconds}\n"
    )
