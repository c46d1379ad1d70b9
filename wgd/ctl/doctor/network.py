"""Asks the network, in threads: the resolver, the endpoints of peers in trouble, and the sizes that
pass on the way to those that work. Meanwhile the daemon is watched for a moment.
"""

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final, TypeVar

from wgd.ctl.doctor.facts import Facts, MtuProbe, NameAnswer, Source, Unseen
from wgd.ctl.doctor.probe import probe_endpoint, probe_mtu
from wgd.ctl.doctor.rules.common import SESSION_NS, is_silent, split_endpoint
from wgd.ctl.doctor.rules.sizes import overhead
from wgd.ctl.doctor.system import addresses_of
from wgd.ctl.values import base64_of
from wgd.status import DeviceStatus, PeerStatus
from wgd.uapi.client import Client, DeviceError

T = TypeVar("T")

MAX_PEERS_ASKED: Final = 16
"""Peers that packets are sent to: so many of those in trouble, and of those that work."""
MAX_NAMES: Final = 64
MAX_PEERS_WATCHED: Final = 1000
WATCH_SECONDS: Final = 1.5
WATCH_INTERVAL_SECONDS: Final = 0.1

_LENGTHS: Final = ("/32", "/128")  # an allowed IP that is one address: the peer's own


def ask_network(facts: Facts, client: Client, unseen: list[Unseen]) -> Facts:
    """Return the facts with what the network says. Takes a few seconds."""
    device = facts.device
    if device is None:
        return facts
    names = [peer for peer in device.peers if _has_name(peer)][:MAX_NAMES]
    reached = [] if facts.daemon_is_elsewhere else _reached(facts, device)
    silent = [peer for peer in reached if is_silent(peer, facts)]
    well = [peer for peer in reached if peer.has_session and not is_silent(peer, facts)]
    for peers, what in ((silent, "endpoints of silent peers"), (well, "ways to peers that work")):
        if len(peers) > MAX_PEERS_ASKED:
            unseen.append(Unseen(f"{len(peers) - MAX_PEERS_ASKED} {what}", "there are very many"))
    with ThreadPoolExecutor(max_workers=2 * MAX_PEERS_ASKED) as pool:
        endpoints = {
            peer.public_key: pool.submit(probe_endpoint, peer.endpoint, device.fwmark)
            for peer in silent[:MAX_PEERS_ASKED]
        }
        mtus = {
            peer.public_key: pool.submit(_sizes, facts, peer, device.fwmark)
            for peer in well[:MAX_PEERS_ASKED]
        }
        answers = {peer.public_key: pool.submit(_look_up, peer) for peer in names}
        seen = _watch(facts, device, client)
    return replace(
        facts,
        seen_endpoints=seen,
        names=_results(answers, "a host name", unseen),
        probes=_results(endpoints, "the endpoint of a peer", unseen),
        mtus=_results(mtus, "the sizes that pass", unseen),
    )


def _reached(facts: Facts, device: DeviceStatus) -> list[PeerStatus]:
    """Return the peers that the system has a way to, outside of the tunnel."""
    return [
        peer
        for peer in device.peers
        if (path := facts.paths.get(peer.public_key)) is not None
        and not path.marked.error
        and path.marked.interface != facts.interface
    ]


def _has_name(peer: PeerStatus) -> bool:
    host, _ = split_endpoint(peer.configured_endpoint)
    return bool(host) and ":" not in host and not host.replace(".", "").isdigit()


def _look_up(peer: PeerStatus) -> NameAnswer:
    host, _ = split_endpoint(peer.configured_endpoint)
    try:
        return NameAnswer(addresses_of(host))
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else ""
        return NameAnswer(error=reason or "no such name")


def _sizes(facts: Facts, peer: PeerStatus, fwmark: int) -> tuple[MtuProbe, ...]:
    """Return which sizes pass: outside on the way to the endpoint, and through the tunnel."""
    if facts.link is None:
        return ()
    mtu = facts.link.mtu
    host, _ = split_endpoint(peer.endpoint)
    probes = [probe_mtu(host, mtu + overhead(peer.endpoint), fwmark)]
    for prefix in peer.allowed_ips:
        address = prefix.partition("/")[0]
        route = facts.prefix_routes.get(prefix)
        if prefix.endswith(_LENGTHS) and route is not None and route.interface == facts.interface:
            probes.append(probe_mtu(address, mtu, is_inside=True))
            break
    return tuple(probes)


def _watch(facts: Facts, device: DeviceStatus, client: Client) -> Mapping[str, tuple[str, ...]]:
    """Return where each peer was during a moment, if one of them is about at all."""
    is_active = any(facts.now_ns - each.last_handshake_ns < SESSION_NS for each in device.peers)
    if facts.source is Source.WATCH or len(device.peers) > MAX_PEERS_WATCHED or not is_active:
        return {}
    seen = {peer.public_key: [peer.endpoint] for peer in device.peers}
    deadline = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < deadline:
        time.sleep(WATCH_INTERVAL_SECONDS)
        with contextlib.suppress(DeviceError):
            for peer in client.device(facts.interface).peers:
                places = seen.setdefault(base64_of(peer.public_key), [])
                if peer.endpoint is not None and places[-1:] != [str(peer.endpoint)]:
                    places.append(str(peer.endpoint))
    return {key: tuple(places) for key, places in seen.items() if len(places) > 1}


def _results(asked: Mapping[str, Future[T]], what: str, unseen: list[Unseen]) -> dict[str, T]:
    results = {}
    for public_key, future in asked.items():
        try:
            results[public_key] = future.result()
        except OSError as error:
            missed = Unseen(what, error.strerror or str(error))
            if missed not in unseen:
                unseen.append(missed)
    return results
