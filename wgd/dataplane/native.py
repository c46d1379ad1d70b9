"""The native data plane: a thin Python face of `wgd_native`, which moves the packets in threads.

Importing this module needs that extension. Here numbers and tuples become the types of the
interface and back; packets never come by, except in tests:

    start          the engine's threads work on duplicates of the TUN's and the sockets' descriptors
    without it     the engine works on the objects themselves, one step per call
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import wgd_native

from wgd.addresses import Endpoint, Prefix, Source
from wgd.clock import Clock
from wgd.dataplane.choice import QueuedTun, SegmentingTun
from wgd.dataplane.interface import (
    BecameActive,
    Counters,
    DatagramSocket,
    Fault,
    HandshakeMessage,
    KeypairConfirmed,
    Load,
    NeedsHandshake,
    OffloadOff,
    PeerId,
    QueueDepths,
    Report,
    Stamps,
    Tun,
    TunClosed,
)
from wgd.dataplane.portable_state import Drops
from wgd.diagnosis import FailureReason
from wgd.noise.cookie import HandshakeKeys
from wgd.noise.keypair import Keypair

SEGMENTATION: Final = ("tun_tso", "tun_uso")
"""What only the maker of the TUN knows to be on; the engine knows whether it has failed since."""


class NativeDataPlane:
    """A `DataPlane`. `tun` and the attached sockets stay the caller's; `stop` frees the rest."""

    def __init__(self, tun: Tun, clock: Clock) -> None:
        self._tun = tun
        self._clock = clock
        self._engine = wgd_native.Engine()
        self._has_threads = False
        self._sockets: tuple[DatagramSocket, ...] = ()

    @property
    def drops(self) -> Drops:
        """What was dropped since the start, by reason."""
        return Drops(**self._engine.drops())

    def start(self, loop: object) -> None:  # noqa: ARG002 - as the portable engine, which needs it
        """Begin to move packets, in threads of the engine's own: not before a fork.

        Raises OSError, and TypeError for a TUN without descriptors.
        """
        if not isinstance(self._tun, QueuedTun):
            raise TypeError(f"the native data plane cannot run on a {type(self._tun).__name__}")
        self._engine.start(
            self._tun.queue_fds,
            virtio_header_size=self._tun.virtio_header_size,
            has_packet_information=self._tun.has_packet_information,
        )
        self._has_threads = True
        if self._sockets:
            self.attach_sockets(self._sockets)

    def stop(self) -> None:
        """End the threads and erase all keypairs; once or more. Not to be used again.

        The event descriptor is closed when the object goes.
        """
        self._engine.stop()
        self._sockets = ()

    # -- the steps, without threads ----------------------------------------------------------------

    def receive_from_tun(self) -> bool:
        """Send what the TUN holds, up to a limit; False if reading failed and nothing was read."""
        return self._engine.step_tun(self._clock.boot_ns())

    def receive_from_socket(self, socket: DatagramSocket) -> bool:
        """Handle what a socket holds, up to a limit; False if it failed and nothing came."""
        return self._engine.step_socket(self._sockets.index(socket), self._clock.boot_ns())

    # -- the outside world -------------------------------------------------------------------------

    def attach_sockets(self, sockets: Sequence[DatagramSocket]) -> None:
        """Use these sockets instead of any before; none stops UDP.

        As many of one family as there are workers. Raises OSError when no descriptor is left.
        """
        if self._has_threads:
            self._engine.attach_sockets(
                [(each.fileno(), each.is_ipv6, each.max_segments) for each in sockets]
            )
        else:
            self._engine.attach_objects(self._tun, tuple(sockets))
        self._sockets = tuple(sockets)

    def set_mtu(self, mtu: int) -> None:
        """Padding never makes an inner packet longer than `mtu` (bytes)."""
        self._engine.set_mtu(mtu)

    # -- peers -------------------------------------------------------------------------------------

    def add_peer(self, peer: PeerId) -> None:
        """Know a peer: no endpoint, allowed IPs or keypairs yet; a check is not armed."""
        self._engine.add_peer(peer)

    def remove_peer(self, peer: PeerId) -> tuple[int, ...]:
        """Forget a peer, its keypairs, staged packets and allowed IPs; return its freed indices."""
        return self._engine.remove_peer(peer)

    def set_endpoint(self, peer: PeerId, endpoint: Endpoint) -> None:
        """Send to `endpoint` from now on (until the peer roams)."""
        self._engine.set_endpoint(peer, endpoint)

    def endpoint(self, peer: PeerId) -> Endpoint | None:
        """Return where the peer was last heard from, or was set to be."""
        found = self._engine.endpoint(peer)
        return None if found is None else _endpoint(found)

    def clear_source(self, peer: PeerId) -> None:
        """Forget the peer's pinned source address; the kernel chooses one."""
        self._engine.clear_source(peer)

    def add_allowed_ip(self, peer: PeerId, prefix: Prefix) -> None:
        """Route `prefix` to this peer, taking it from any other."""
        self._engine.add_allowed_ip(peer, prefix.address, prefix.length)

    def remove_allowed_ip(self, peer: PeerId, prefix: Prefix) -> None:
        """Stop routing exactly `prefix` to this peer; nothing if another peer has it."""
        self._engine.remove_allowed_ip(peer, prefix.address, prefix.length)

    # -- sessions ----------------------------------------------------------------------------------

    def install_keypair(self, peer: PeerId, keypair: Keypair) -> tuple[int, ...]:
        """Add a keypair; return the receiver indices that it pushed out."""
        return self._engine.install_keypair(
            peer,
            keypair.local_index,
            keypair.remote_index,
            keypair.send_key,
            keypair.receive_key,
            keypair.is_initiator,
            keypair.created_ns,
        )

    def expire_keypairs(self, peer: PeerId) -> None:
        """Never send under the present keypairs again; still open what arrives under them."""
        self._engine.expire_keypairs(peer)

    def drop_keypairs(self, peer: PeerId) -> tuple[int, ...]:
        """Erase all keypairs of the peer; return their receiver indices."""
        return self._engine.drop_keypairs(peer)

    def send_keepalive(self, peer: PeerId) -> None:
        """Send what is staged, or if nothing is, an empty packet (staged without a keypair)."""
        self._engine.send_keepalive(peer, self._clock.boot_ns())

    def send_staged(self, peer: PeerId) -> None:
        """Send what is staged; without a keypair report `NeedsHandshake` (again)."""
        self._engine.send_staged(peer, self._clock.boot_ns())

    def drop_staged(self, peer: PeerId) -> None:
        """Throw the staged packets away."""
        self._engine.drop_staged(peer)

    def refuse_staged(self, peer: PeerId) -> None:
        """Tell the senders of what is staged, throw it away, and do so with what follows."""
        self._engine.refuse_staged(peer, self._clock.boot_ns())

    # -- stamps and counters -----------------------------------------------------------------------

    def stamps(self, peer: PeerId) -> Stamps:
        """Return the peer's stamps."""
        return Stamps(*self._engine.stamps(peer))

    def counters(self, peer: PeerId) -> Counters:
        """Return the peer's counters."""
        return Counters(*self._engine.counters(peer))

    def faults(self, peer: PeerId) -> tuple[Fault, ...]:
        """Return what has gone wrong with this peer's packets, each reason at most once."""
        return tuple(
            Fault(FailureReason(reason), count, last_ns, errno)
            for reason, count, last_ns, errno in self._engine.faults(peer)
        )

    def has_session(self, peer: PeerId) -> bool:
        """Whether the peer has a current keypair that may still send."""
        return self._engine.has_session(peer, self._clock.boot_ns())

    def staged_packets(self, peer: PeerId) -> int:
        """Return how many packets wait for a session with the peer."""
        return self._engine.staged_packets(peer)

    def drop_counts(self) -> Mapping[str, int]:
        """Return what was dropped since the start, by the names of `Drops`."""
        return self._engine.drops()

    def queue_depths(self) -> QueueDepths:
        """Return how much waits now."""
        return QueueDepths(*self._engine.queue_depths())

    def offloads(self) -> tuple[str, ...]:
        """Return the names of the kernel's offloads in use, sorted."""
        made = self._tun.segmentation if isinstance(self._tun, SegmentingTun) else ()
        return tuple(
            name for name in self._engine.offloads() if name not in SEGMENTATION or name in made
        )

    def disarm(self, peer: PeerId) -> None:
        """Report `BecameActive` when a first-data stamp is set from now on, or is set already."""
        self._engine.disarm(peer)

    def clear_data_sent_unanswered(self, peer: PeerId) -> None:
        """Forget the "first data packet sent" stamp: the control plane has acted on it."""
        self._engine.clear_data_sent_unanswered(peer)

    def clear_stamps(self, peer: PeerId) -> None:
        """Forget both "first data packet" stamps, and be disarmed."""
        self._engine.clear_stamps(peer)

    # -- handshakes --------------------------------------------------------------------------------

    def set_handshake_keys(self, keys: HandshakeKeys | None) -> None:
        """Check MACs with these keys; without any, drop every initiation and response."""
        self._engine.set_handshake_keys(*((None, None) if keys is None else keys))

    def take_handshakes(self, limit: int) -> list[HandshakeMessage]:
        """Take at most `limit` queued handshake messages, oldest first."""
        taken = self._engine.take_handshakes(limit)
        return [HandshakeMessage(datagram, _endpoint(source)) for datagram, source in taken]

    def load(self) -> Load:
        """Return whether handshake messages must prove where they come from, and what that cost."""
        return Load(*self._engine.load(self._clock.boot_ns()))

    def send_to_peer(self, peer: PeerId, datagram: bytes) -> bool:
        """Send a handshake message to the peer's endpoint; False if it has none or it failed."""
        return self._engine.send_to_peer(peer, datagram, self._clock.boot_ns())

    def note_received(self, peer: PeerId, length: int, source: Endpoint) -> None:
        """Count and stamp an authenticated handshake message and roam to its `source`."""
        self._engine.note_received(peer, length, source, self._clock.boot_ns())

    # -- events ------------------------------------------------------------------------------------

    def event_fd(self) -> int:
        """Return a descriptor that is readable while events or handshake messages wait."""
        return self._engine.event_fd()

    def drain_events(self) -> list[Report]:
        """Return all waiting events, oldest first."""
        return [_report(event) for event in self._engine.drain_events()]


def _endpoint(found: tuple[str, int, int, tuple[str, int] | None]) -> Endpoint:
    host, port, scope_id, source = found
    return Endpoint(host, port, scope_id, None if source is None else Source(*source))


def _report(event: tuple[Any, ...]) -> Report:
    match event:
        case ("needs_handshake", peer):
            return NeedsHandshake(PeerId(peer))
        case ("became_active", peer):
            return BecameActive(PeerId(peer))
        case ("keypair_confirmed", peer, local_index, freed):
            return KeypairConfirmed(PeerId(peer), local_index, tuple(freed))
        case ("tun_closed", reason):
            return TunClosed(reason)
        case ("offload_off", name, reason):
            return OffloadOff(name, reason)
    raise ValueError(f"wgd-native reported {event!r}: it does not belong to this wgd")
