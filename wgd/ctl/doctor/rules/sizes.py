"""Sizes: the MTU against the path, buffers that overflowed, offloads that are off."""

from collections.abc import Iterator
from typing import Final

from wgd.ctl.doctor.catalog import Finding, find
from wgd.ctl.doctor.facts import Facts
from wgd.ctl.doctor.rules.common import about, is_ipv6
from wgd.status import DeviceStatus, PeerStatus

OVERHEAD_IPV4: Final = 20 + 8 + 16 + 16
"""Bytes a packet grows by: IP and UDP header, WireGuard's header, its authentication tag."""
OVERHEAD_IPV6: Final = 40 + 8 + 16 + 16
MIN_MTU_IPV6: Final = 1280

_OFFLOADS: Final = {
    "tun_tso": "joined packets from the TUN (TSO)",
    "udp_gso": "sending many datagrams at once (UDP GSO)",
    "udp_gro": "receiving many datagrams at once (UDP GRO)",
}


def overhead(endpoint: str) -> int:
    """Return by how many bytes a packet grows on the way to an endpoint."""
    return OVERHEAD_IPV6 if is_ipv6(endpoint) else OVERHEAD_IPV4


def mtu(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Packets of the interface's MTU do not fit the path: by what is known, or by probe."""
    if facts.link is None:
        return
    for peer in device.peers:
        known = _known_to_be_too_large(facts, peer, facts.link.mtu)
        if known is not None:
            yield known
        else:
            yield from _lost(facts, peer)


def _known_to_be_too_large(facts: Facts, peer: PeerStatus, mtu: int) -> Finding | None:
    path = facts.paths.get(peer.public_key)
    if path is None or not path.marked.mtu or path.marked.interface in ("", facts.interface):
        return None
    needed = mtu + overhead(peer.endpoint)
    if needed <= path.marked.mtu:
        return None
    best = path.marked.mtu - overhead(peer.endpoint)
    return about(
        "mtu-too-large",
        facts,
        peer,
        mtu=mtu,
        underlay=path.marked.interface,
        path_mtu=path.marked.mtu,
        needed=needed,
        best=best,
    )


def _lost(facts: Facts, peer: PeerStatus) -> Iterator[Finding]:
    probes = facts.mtus.get(peer.public_key, ())
    if any(probe.is_inside and probe.largest >= probe.wanted for probe in probes):
        return  # the full size passes; that the way lets no such ping through does not matter
    for probe in probes:
        if 0 < probe.largest < probe.wanted:
            best = probe.largest - (0 if probe.is_inside else overhead(peer.endpoint))
            yield about(
                "mtu-black-hole",
                facts,
                peer,
                lost=probe.wanted,
                largest=probe.largest,
                where=" through the tunnel" if probe.is_inside else "",
                best=best,
            )
            return


def full_buffers(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Datagrams were lost for want of room."""
    if facts.system.overflowed_datagrams:
        yield find(
            "receive-buffer-full",
            count=facts.system.overflowed_datagrams,
            port=device.listen_port,
            limit=facts.system.largest_receive_buffer or "not known",
        )


def offloads(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """The native engine does without an offload that Linux has."""
    missing = [text for name, text in _OFFLOADS.items() if name not in device.offloads]
    if device.dataplane == "native" and device.is_listening and missing:
        yield find("offload-off", interface=facts.interface, offloads=", ".join(missing))


RULES: Final = (mtu, full_buffers, offloads)
