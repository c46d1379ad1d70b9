"""The data plane's interface: all that the control plane and an engine say to each other.

An engine owns what only it sees: keypairs, replay windows, staged packets, counters, stamps and
the present endpoint of each peer. The control plane owns the protocol: handshakes, timers and
configuration. Calls go down and never block or fail for a known peer; events come up through a
file descriptor to wait on and a call that drains a typed list. DESIGN: no event per packet.

Both engines (`portable`, `native`; `choice` says which) pass the tests in tests/dataplane.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NewType, Protocol

from wgd.addresses import Endpoint, Prefix
from wgd.diagnosis import FailureReason
from wgd.noise.cookie import HandshakeKeys
from wgd.noise.keypair import Keypair

PeerId = NewType("PeerId", int)
"""A number the control plane gives each peer; never used twice in the life of a device."""


# -- events, upwards -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NeedsHandshake:
    """The peer has packets to send and no keypair to send them with, or one that is due for rekey.

    Reported once; again only after `install_keypair`, `drop_staged` or `send_staged`.
    """

    peer: PeerId


@dataclass(frozen=True, slots=True)
class BecameActive:
    """One of the peer's two "first data packet" stamps was set while no check was armed.

    Reported once; again only after `disarm`.
    """

    peer: PeerId


@dataclass(frozen=True, slots=True)
class KeypairConfirmed:
    """The first packet under the responder's new keypair arrived: it is now the current one."""

    peer: PeerId
    local_index: int
    freed_indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TunClosed:
    """The TUN device is gone (deleted, or its descriptor was closed)."""

    reason: str


@dataclass(frozen=True, slots=True)
class OffloadOff:
    """The engine does without one of the kernel's offloads from now on: it has failed here.

    Nothing was lost and nothing need be done; it is worth a line in the log.
    """

    name: str
    reason: str


Event = NeedsHandshake | BecameActive | KeypairConfirmed | TunClosed
"""What changes something for a device or its owner."""

Report = Event | OffloadOff
"""All that an engine reports."""


@dataclass(frozen=True, slots=True)
class HandshakeMessage:
    """A handshake initiation, response or cookie reply of the right length.

    The first two had a right MAC1, the last two name an index of ours that waits for them, and
    under load they were let in by the gate. Nothing else about them has been checked.
    """

    datagram: bytes = field(repr=False)
    source: Endpoint


# -- what a peer looks like from outside ---------------------------------------------------------


class Stamps(NamedTuple):
    """When things last happened to a peer, in boot nanoseconds; 0 for never or "not since".

    Handshake messages count as authenticated packets, keepalives as authenticated but not as data.
    """

    last_sent_ns: int
    last_received_ns: int
    first_data_sent_unanswered_ns: int
    """First data packet sent since the last authenticated packet received."""
    first_data_received_unanswered_ns: int
    """First data packet received since the last authenticated packet sent."""


class Counters(NamedTuple):
    """Bytes of UDP payload: handshakes, keepalives and data of this peer, in both directions.

    Packets are the datagrams that these bytes were in.
    """

    sent_bytes: int
    received_bytes: int
    sent_packets: int
    received_packets: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that keeps happening to the packets of one peer.

    `count` is how many packets or handshake messages it has happened to, `last_ns` boot time;
    `errno` is what the system said last, 0 if it has no say.
    """

    reason: FailureReason
    count: int
    last_ns: int
    errno: int


class Load(NamedTuple):
    """Whether handshake messages must prove now where they come from (paper, section 5.3), and how
    many cookie replies have told senders how, since the start.
    """

    is_under_load: bool
    cookies_sent: int


class QueueDepths(NamedTuple):
    """What waits in the engine now: handshake messages, and packets staged for all peers."""

    handshakes: int
    staged: int


# -- what an engine is given ---------------------------------------------------------------------


class Tun(Protocol):
    """One queue of a TUN device. Calls raise OSError; EAGAIN (BlockingIOError) when it is empty."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def read_into(self, buffer: memoryview) -> int:
        """Read one IP packet (no link header) into `buffer` and return its length in bytes."""

    def write(self, packet: memoryview) -> None:
        """Write one IP packet (no link header)."""


class DatagramSocket(Protocol):
    """A UDP socket of one family. Calls raise OSError; EAGAIN when nothing can be done now."""

    @property
    def is_ipv6(self) -> bool:
        """Whether this socket speaks IPv6 (only)."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def receive_into(self, buffer: memoryview) -> tuple[int, int, Endpoint, int]:
        """Receive into `buffer`; return the length, the size of a datagram, the sender, whose
        `source` is the local address it was sent to, and the type of service or traffic class that
        all of it came with (0 if that is not known).

        What was received is one datagram, or several of one size (the last may be shorter) that
        the kernel has put together (UDP GRO). One longer than the buffer returns a length of 0.
        """

    def send(
        self,
        datagram: bytes | bytearray | memoryview,
        endpoint: Endpoint,
        traffic_class: int = 0,
    ) -> None:
        """Send one datagram to `endpoint`, from `endpoint.source` if that is set, with this type of
        service or traffic class.
        """

    @property
    def max_segments(self) -> int:
        """How many datagrams `send_segments` takes at once; 1 if it cannot be used.

        If more than 1, `receive_into` may also receive more than one at once.
        """

    def send_segments(
        self, datagrams: memoryview, size: int, endpoint: Endpoint, traffic_class: int = 0
    ) -> None:
        """Send datagrams of `size` bytes that lie end to end, the last may be shorter (UDP GSO)."""


class DataPlane(Protocol):
    """One engine moving the packets of one device."""

    # -- the outside world: sockets come and go with the link ------------------------------------

    def attach_sockets(self, sockets: Sequence[DatagramSocket]) -> None:
        """Use these sockets instead of any before; none stops UDP.

        At most one per family, or for an engine with several workers one for each, on one port. The
        caller keeps ownership of the old and the new ones. Pinned sources are forgotten.
        """

    def set_mtu(self, mtu: int) -> None:
        """Padding never makes an inner packet longer than `mtu` (bytes)."""

    # -- peers -----------------------------------------------------------------------------------

    def add_peer(self, peer: PeerId) -> None:
        """Know a peer: no endpoint, allowed IPs or keypairs yet; a check is not armed."""

    def remove_peer(self, peer: PeerId) -> tuple[int, ...]:
        """Forget a peer, its keypairs, staged packets and allowed IPs; return its freed indices."""

    def set_endpoint(self, peer: PeerId, endpoint: Endpoint) -> None:
        """Send to `endpoint` from now on (until the peer roams)."""

    def endpoint(self, peer: PeerId) -> Endpoint | None:
        """Return where the peer was last heard from, or was set to be."""

    def clear_source(self, peer: PeerId) -> None:
        """Forget the peer's pinned source address; the kernel chooses one."""

    def add_allowed_ip(self, peer: PeerId, prefix: Prefix) -> None:
        """Route `prefix` to this peer, taking it from any other."""

    def remove_allowed_ip(self, peer: PeerId, prefix: Prefix) -> None:
        """Stop routing exactly `prefix` to this peer; nothing if another peer has it."""

    # -- sessions --------------------------------------------------------------------------------

    def install_keypair(self, peer: PeerId, keypair: Keypair) -> tuple[int, ...]:
        """Add a keypair; return the receiver indices that it pushed out.

        An initiator's becomes current at once, and the old current, or an unconfirmed next,
        previous; nothing is sent (the control plane calls `send_keepalive`, which also confirms
        the session). A responder's becomes next, in place of any next and previous, until a packet
        confirms it; then staged packets are sent.
        """

    def expire_keypairs(self, peer: PeerId) -> None:
        """Never send under the present keypairs again; still open what arrives under them."""

    def drop_keypairs(self, peer: PeerId) -> tuple[int, ...]:
        """Erase all keypairs of the peer; return their receiver indices.

        The answer to an initiation is still waited for: it may have begun after they ended.
        """

    def send_keepalive(self, peer: PeerId) -> None:
        """Send what is staged, or if nothing is, an empty packet (staged if there is no keypair).

        Clears the "first data packet received" stamp even if nothing could be sent.
        """

    def send_staged(self, peer: PeerId) -> None:
        """Send what is staged; without a keypair report `NeedsHandshake` (again)."""

    def drop_staged(self, peer: PeerId) -> None:
        """Throw the staged packets away."""

    def refuse_staged(self, peer: PeerId) -> None:
        """The peer has no endpoint and none is to come: tell the senders of what is staged by ICMP,
        throw it away, and do so at once with what follows.

        That lasts until there is an endpoint, `send_staged` or `drop_staged`. Packets that no peer
        has the destination of are always refused like this.
        """

    # -- stamps and counters ---------------------------------------------------------------------

    def stamps(self, peer: PeerId) -> Stamps:
        """Return the peer's stamps."""

    def counters(self, peer: PeerId) -> Counters:
        """Return the peer's counters."""

    def faults(self, peer: PeerId) -> tuple[Fault, ...]:
        """Return what has gone wrong with this peer's packets, each reason at most once.

        Reasons: SEND_FAILED (EAFNOSUPPORT without a socket of the endpoint's family), NO_ENDPOINT
        (after `refuse_staged`), PACKET_NOT_AUTHENTIC, PACKET_REPLAYED, SESSION_EXPIRED,
        NOT_AN_ALLOWED_IP, MALFORMED_PACKET.
        Each is counted in `drop_counts`, too. An error on receiving is nobody's: of ICMP errors the
        kernel tells sockets that are not connected, as ours, nothing.
        """

    def has_session(self, peer: PeerId) -> bool:
        """Whether the peer has a current keypair that may still send."""

    def staged_packets(self, peer: PeerId) -> int:
        """Return how many packets wait for a session with the peer."""

    def drop_counts(self) -> Mapping[str, int]:
        """Return what was dropped since the start, by the names of `Drops`."""

    def queue_depths(self) -> QueueDepths:
        """Return how much waits now."""

    def offloads(self) -> tuple[str, ...]:
        """Return the names of the kernel's offloads in use, sorted: of "tun_tso", "tun_uso",
        "tun_gro" (joined packets written), "udp_gso", "udp_gro".

        One that has switched itself off is not among them: "tun_gro" as soon as that was so for TCP
        or UDP, "udp_gso" when it was so on the path to every peer.
        """

    def disarm(self, peer: PeerId) -> None:
        """Report `BecameActive` when a first-data stamp is set from now on.

        Reported at once if one is set already, so that nothing falls between reading and disarming.
        """

    def clear_data_sent_unanswered(self, peer: PeerId) -> None:
        """Forget the "first data packet sent" stamp: the control plane has acted on it."""

    def clear_stamps(self, peer: PeerId) -> None:
        """Forget both "first data packet" stamps, and be disarmed: nothing is unanswered now."""

    # -- handshakes ------------------------------------------------------------------------------

    def set_handshake_keys(self, keys: HandshakeKeys | None) -> None:
        """Check MACs and make cookie replies with these keys; without any, drop every initiation
        and response. What was known of their senders is forgotten.
        """

    def take_handshakes(self, limit: int) -> list[HandshakeMessage]:
        """Take at most `limit` queued handshake messages, oldest first.

        `gate` says which are queued, and which are answered by a cookie reply instead; a full
        queue drops its oldest.
        """

    def load(self) -> Load:
        """Return whether there is load now, and what it has cost."""

    def send_to_peer(self, peer: PeerId, datagram: bytes) -> bool:
        """Send a handshake message to the peer's endpoint; False if it has none or it failed.

        It is marked with HANDSHAKE_TRAFFIC_CLASS, and in either case counted and stamped as an
        authenticated packet sent. Only the initiation sent last to a peer may be answered, until
        there is a keypair with its index.
        """

    def note_received(self, peer: PeerId, length: int, source: Endpoint) -> None:
        """Count and stamp an authenticated handshake message and roam to its `source`."""

    # -- events ----------------------------------------------------------------------------------

    def event_fd(self) -> int:
        """Return a descriptor that is readable while events or handshake messages wait."""

    def drain_events(self) -> Sequence[Report]:
        """Return all waiting events, oldest first, and make the descriptor unreadable unless
        handshake messages are still queued.
        """


class Engine(DataPlane, Protocol):
    """A data plane and its life, for the owner of the TUN."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Move packets from now on. Not before a fork: there may be threads. Raises OSError."""

    def stop(self) -> None:
        """Move no more and erase all keypairs; once or more. Comes before the TUN is closed, and
        ends the use of the event descriptor.
        """
