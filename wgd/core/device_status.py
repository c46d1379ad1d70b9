"""What a data plane and a peer say of themselves, as parts of `wgd.status.DeviceStatus`."""

import base64
import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, overload

from wgd.addresses import Prefix
from wgd.clock import Instant
from wgd.configuration import NO_KEY, PeerState
from wgd.constants import MAX_QUEUED_HANDSHAKES, MAX_STAGED_PACKETS
from wgd.core.peer import Peer
from wgd.dataplane.interface import DataPlane, PeerId
from wgd.diagnosis import Failure, FailureLog, FailureReason, latest_first
from wgd.status import DeviceStatus, PeerStatus

_REASON_OF_DROP: Final = {
    "malformed_packet": FailureReason.MALFORMED_PACKET,
    "no_route": FailureReason.NO_ROUTE,
    "malformed_datagram": FailureReason.MALFORMED_MESSAGE,
    "wrong_mac1": FailureReason.WRONG_MAC1,
    "unknown_index": FailureReason.UNKNOWN_INDEX,
}
"""The drops that say why something does not work and belong to no peer."""


def describe(dataplane: DataPlane, refused: FailureLog, peers: int) -> DeviceStatus:
    """Return the status of a device with so many peers, as far as its data plane knows it.

    `refused` is what the control plane has refused that was of no peer.
    """
    drops = dict(dataplane.drop_counts())
    depths = dataplane.queue_depths()
    return DeviceStatus(
        interface="",
        offloads=dataplane.offloads(),
        drops=drops,
        queues={"handshakes": depths.handshakes, "staged": depths.staged},
        queue_limits={"handshakes": MAX_QUEUED_HANDSHAKES, "staged": MAX_STAGED_PACKETS * peers},
        failures=_failures(drops, refused),
    )


def _failures(drops: Mapping[str, int], refused: FailureLog) -> tuple[Failure, ...]:
    """Return what was refused together with what was dropped, whose time nobody knows."""
    failures = {failure.reason: failure for failure in refused.failures()}
    for name, reason in _REASON_OF_DROP.items():
        if count := drops.get(name, 0):
            known = failures.get(reason, Failure(reason, 0, 0))
            failures[reason] = Failure(reason, known.count + count, known.last_ns, known.detail)
    return latest_first(failures.values())


class PeerStates(Sequence[PeerState]):
    """The state of each of these peers, made when it is looked at, or all that are left at once."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._peers = peers
        self._complete: tuple[PeerState, ...] | None = None

    def complete(self) -> None:
        """Make all of it now: peers are about to change."""
        if self._complete is None:
            self._complete = tuple(peer.state() for peer in self._peers)

    def __len__(self) -> int:
        return len(self._peers)

    @overload
    def __getitem__(self, index: int) -> PeerState: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PeerState]: ...
    def __getitem__(self, index: int | slice) -> PeerState | Sequence[PeerState]:
        if self._complete is not None:
            return self._complete[index]
        if isinstance(index, slice):
            return tuple(peer.state() for peer in self._peers[index])
        return self._peers[index].state()


class PeerStatuses(Sequence[PeerStatus]):
    """The status of each of these peers, made when it is looked at: of 65,536 at once it would take
    a second. `known` tells which are still there: of one removed meanwhile only the key is told.
    """

    def __init__(
        self,
        peers: Sequence[Peer],
        known: Mapping[PeerId, Peer],
        dataplane: DataPlane,
        now: Instant,
    ) -> None:
        self._peers = peers
        self._known = known
        self._dataplane = dataplane
        self._now = now

    def __len__(self) -> int:
        return len(self._peers)

    @overload
    def __getitem__(self, index: int) -> PeerStatus: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PeerStatus]: ...
    def __getitem__(self, index: int | slice) -> PeerStatus | Sequence[PeerStatus]:
        if isinstance(index, slice):
            return tuple(self._describe(peer) for peer in self._peers[index])
        return self._describe(self._peers[index])

    def _describe(self, peer: Peer) -> PeerStatus:
        if peer.id not in self._known:
            return PeerStatus(public_key=_base64(peer.public_key))
        return describe_peer(peer, self._dataplane, self._now)


class _Texts(Sequence[str]):
    """Prefixes as text, made when it is looked at: of a million at once it would take a second."""

    def __init__(self, prefixes: Sequence[Prefix]) -> None:
        self._prefixes = prefixes

    def __len__(self) -> int:
        return len(self._prefixes)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return tuple(map(str, self._prefixes[index]))
        return str(self._prefixes[index])


def _base64(key: bytes) -> str:
    return base64.b64encode(key).decode()


def describe_peer(peer: Peer, dataplane: DataPlane, now: Instant) -> PeerStatus:
    """Return all that is known of this peer, without any secret."""
    state = peer.state()
    counters = dataplane.counters(peer.id)
    stamps = dataplane.stamps(peer.id)
    endpoint = "" if state.endpoint is None else str(state.endpoint)
    return PeerStatus(
        public_key=_base64(peer.public_key),
        endpoint=endpoint,
        configured_endpoint=str(peer.locator),
        allowed_ips=_Texts(state.allowed_ips),
        persistent_keepalive_seconds=state.persistent_keepalive_seconds,
        has_preshared_key=state.preshared_key != NO_KEY,
        has_session=dataplane.has_session(peer.id),
        last_handshake_ns=state.last_handshake_ns,
        last_received_ns=now.wall_at(stamps.last_received_ns),
        last_sent_ns=now.wall_at(stamps.last_sent_ns),
        unanswered_initiations=peer.initiator.unanswered,
        received_bytes=counters.received_bytes,
        sent_bytes=counters.sent_bytes,
        received_packets=counters.received_packets,
        sent_packets=counters.sent_packets,
        staged_packets=dataplane.staged_packets(peer.id),
        failures=peer.failures.failures(*_faults(peer, dataplane, endpoint, now)),
    )


def _faults(peer: Peer, dataplane: DataPlane, endpoint: str, now: Instant) -> Iterator[Failure]:
    """Yield what the data plane has to say about this peer's packets."""
    for fault in dataplane.faults(peer.id):
        detail = errno.errorcode.get(fault.errno, "")
        if fault.reason is FailureReason.SEND_FAILED:
            detail = f"{detail} to {endpoint}".lstrip()
        yield Failure(fault.reason, fault.count, now.wall_at(fault.last_ns), detail)
