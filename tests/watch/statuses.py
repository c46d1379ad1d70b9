"""Statuses of devices, as a daemon would give them."""

import base64
import random

from wgd.diagnosis import Failure, FailureReason
from wgd.status import LATENCY_BOUNDS_SECONDS, DeviceStatus, Handshakes, Latency, PeerStatus

SECOND_NS = 1_000_000_000
NOW_NS = 1_800_000_000 * SECOND_NS


def key(seed: int) -> str:
    """Return a public key, the same for the same seed."""
    return base64.b64encode(random.Random(seed).randbytes(32)).decode()


def peer(seed: int, **values: object) -> PeerStatus:
    """Return a peer of that key with a session, 40 s after its handshake, unless told otherwise."""
    usual: dict[str, object] = {
        "endpoint": f"192.0.2.{seed % 250 + 1}:51820",
        "allowed_ips": (f"10.1.{seed // 250}.{seed % 250 + 1}/32",),
        "has_session": True,
        "last_handshake_ns": NOW_NS - 40 * SECOND_NS,
        "received_bytes": 1000 + seed,
        "sent_bytes": 2000 + seed,
        "received_packets": 10 + seed,
        "sent_packets": 20 + seed,
    }
    return PeerStatus(key(seed), **{**usual, **values})  # type: ignore[arg-type]


def device(*peers: PeerStatus, **values: object) -> DeviceStatus:
    """Return a device that is up and has handled some handshakes, unless told otherwise."""
    counts = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    counts[0], counts[3], counts[-1] = 5, 2, 1
    usual: dict[str, object] = {
        "interface": "wg7",
        "version": "1.2.3",
        "now_ns": NOW_NS,
        "public_key": key(999),
        "mtu": 1420,
        "is_up": True,
        "is_listening": True,
        "dataplane": "native",
        "offloads": ("udp_gso",),
        "handshakes": Handshakes(initiated=9, answered=6, accepted=4, refused=3, unanswered=2),
        "latency": Latency(tuple(counts), 95.25),
        "drops": {"wrong_mac1": 7, "no_route": 0},
        "queues": {"handshakes": 1, "staged": 2},
        "queue_limits": {"handshakes": 1024, "staged": 128},
        "failures": (Failure(FailureReason.UNKNOWN_PEER, 5, NOW_NS),),
        "peers": peers,
    }
    return DeviceStatus(**{**usual, **values})  # type: ignore[arg-type]
