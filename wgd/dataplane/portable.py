"""The data plane in plain Python on `cryptography`: slower than the native one, and runs anywhere.

This file is the `DataPlane` interface and the event loop; the packets' ways are in
`portable_outbound` (TUN to UDP) and `portable_inbound` (UDP to TUN). Everything happens on one
thread, in bounded steps: one wake-up handles at most `PACKETS_PER_WAKEUP` packets of one
descriptor, so none starves another, and reads the clock once.

Without `start` nothing touches an event loop: tests and simulations call the steps themselves.
"""

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from wgd.addresses import Endpoint, Prefix
from wgd.clock import Clock
from wgd.constants import HANDSHAKE_TRAFFIC_CLASS
from wgd.dataplane.interface import (
    Counters,
    DatagramSocket,
    Fault,
    HandshakeMessage,
    Load,
    PeerId,
    QueueDepths,
    Report,
    Stamps,
    Tun,
    TunClosed,
)
from wgd.dataplane.keypairs import Session
from wgd.dataplane.portable_inbound import CLOSED_ERRNOS, Inbound
from wgd.dataplane.portable_outbound import Outbound
from wgd.dataplane.portable_reception import Reception
from wgd.dataplane.portable_state import Drops, EngineState, PeerState
from wgd.dataplane.reader import Loop, Reader
from wgd.dataplane.unreachable import Refusals
from wgd.noise.cookie import HandshakeKeys
from wgd.noise.keypair import Keypair
from wgd.noise.messages import MessageType, message_type
from wgd.noise.primitives import Random

PACKETS_PER_WAKEUP: Final = 64


class PortableDataPlane:
    """A `DataPlane`. `tun` and the attached sockets stay the caller's; `stop` frees the rest."""

    def __init__(self, tun: Tun, clock: Clock, random: Random = os.urandom) -> None:
        self._tun = tun
        self._clock = clock
        self._state = EngineState(clock)
        self._outbound = Outbound(self._state, Refusals(self._answer))
        self._reception = Reception(self._state, self._outbound, random)
        self._inbound = Inbound(self._state, self._outbound, self._reception, tun, self._tun_closed)
        self._tun_is_open = True
        self._sockets: tuple[DatagramSocket, ...] = ()
        self._loop: Loop | None = None
        self._tun_reader: Reader | None = None
        self._socket_readers: list[Reader] = []

    @property
    def drops(self) -> Drops:
        """What was dropped since the start, by reason."""
        return self._state.drops

    # -- the event loop ----------------------------------------------------------------------------

    def start(self, loop: Loop) -> None:
        """Let `loop` run the steps from now on."""
        self._loop = loop
        if self._tun_is_open:
            self._tun_reader = Reader(loop, self._tun.fileno(), self.receive_from_tun)
        self._read_sockets(loop)

    def stop(self) -> None:
        """Leave the loop, erase all keypairs and close the event descriptor; once or more."""
        self._loop = None
        if self._tun_reader is not None:
            self._tun_reader.close()
            self._tun_reader = None
        self._close_socket_readers()
        for peer in self._state.peers:
            self.drop_keypairs(peer)
        self._state.wakeup.close()

    def _read_sockets(self, loop: Loop) -> None:
        self._socket_readers = [
            Reader(loop, socket.fileno(), partial(self.receive_from_socket, socket))
            for socket in self._sockets
        ]

    def _close_socket_readers(self) -> None:
        for reader in self._socket_readers:
            reader.close()
        self._socket_readers = []

    # -- the steps ---------------------------------------------------------------------------------

    def receive_from_tun(self) -> bool:
        """Send what the TUN holds, up to a limit; False if reading failed and nothing was read."""
        now_ns = self._clock.boot_ns()
        outbound = self._outbound
        read_into = self._tun.read_into
        handled = 0
        try:
            while handled < PACKETS_PER_WAKEUP and self._tun_is_open:
                length = read_into(outbound.packet)
                outbound.forward(length, now_ns)
                handled += 1
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as error:
            self._state.drops.tun_failed += 1
            if error.errno in CLOSED_ERRNOS:
                self._tun_closed(error)
            return handled > 0
        finally:
            outbound.flush()
        return True

    def receive_from_socket(self, socket: DatagramSocket) -> bool:
        """Handle what a socket holds, up to a limit; False if it failed and nothing came."""
        now_ns = self._clock.boot_ns()
        inbound = self._inbound
        handled = 0
        try:
            while handled < PACKETS_PER_WAKEUP:
                length, size, source, traffic_class = socket.receive_into(inbound.buffer)
                handled += inbound.receive(length, size, source, traffic_class, now_ns)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            self._state.drops.receive_failed += 1
            return handled > 0
        return True

    def _answer(self, packet: memoryview) -> None:
        with contextlib.suppress(OSError):
            self._tun.write(packet)

    def _tun_closed(self, error: OSError) -> None:
        if not self._tun_is_open:
            return
        self._tun_is_open = False
        if self._tun_reader is not None:
            self._tun_reader.close()
            self._tun_reader = None
        self._state.emit(TunClosed(error.strerror or "the TUN device is gone"))

    # -- the outside world -------------------------------------------------------------------------

    def attach_sockets(self, sockets: Sequence[DatagramSocket]) -> None:
        """Use these sockets (at most one per family) instead of any before; none stops UDP."""
        self._close_socket_readers()
        self._sockets = tuple(sockets)
        self._outbound.use_sockets(self._sockets)
        for peer, known in self._state.peers.items():
            known.may_batch = True
            self.clear_source(peer)
        if self._loop is not None:
            self._read_sockets(self._loop)

    def set_mtu(self, mtu: int) -> None:
        """Padding never makes an inner packet longer than `mtu` (bytes)."""
        self._outbound.set_mtu(mtu)

    # -- peers -------------------------------------------------------------------------------------

    def add_peer(self, peer: PeerId) -> None:
        """Know a peer: no endpoint, allowed IPs or keypairs yet; a check is not armed."""
        self._state.peers[peer] = PeerState(peer)

    def remove_peer(self, peer: PeerId) -> tuple[int, ...]:
        """Forget a peer, its keypairs, staged packets and allowed IPs; return its freed indices."""
        known = self._state.peers.pop(peer)
        self._state.allowed_ips.remove_all(known)
        self._state.routes_changed()
        self._state.forget_initiation(known)
        return self._state.forget_sessions(known.keypairs.clear())

    def set_endpoint(self, peer: PeerId, endpoint: Endpoint) -> None:
        """Send to `endpoint` from now on (until the peer roams)."""
        known = self._state.peers[peer]
        known.endpoint = endpoint
        known.may_batch = True

    def endpoint(self, peer: PeerId) -> Endpoint | None:
        """Return where the peer was last heard from, or was set to be."""
        return self._state.peers[peer].endpoint

    def clear_source(self, peer: PeerId) -> None:
        """Forget the peer's pinned source address; the kernel chooses one."""
        known = self._state.peers[peer]
        if known.endpoint is not None and known.endpoint.source is not None:
            known.endpoint = known.endpoint._replace(source=None)

    def add_allowed_ip(self, peer: PeerId, prefix: Prefix) -> None:
        """Route `prefix` to this peer, taking it from any other."""
        self._state.allowed_ips.insert(prefix, self._state.peers[peer])
        self._state.routes_changed()

    def remove_allowed_ip(self, peer: PeerId, prefix: Prefix) -> None:
        """Stop routing exactly `prefix` to this peer; nothing if another peer has it."""
        self._state.allowed_ips.remove(prefix, self._state.peers[peer])
        self._state.routes_changed()

    # -- sessions ----------------------------------------------------------------------------------

    def install_keypair(self, peer: PeerId, keypair: Keypair) -> tuple[int, ...]:
        """Add a keypair; return the receiver indices that it pushed out."""
        known = self._state.peers[peer]
        session = Session(keypair)
        freed = self._state.forget_sessions(known.keypairs.install(session))
        self._state.open_initiations.pop(session.local_index, None)
        self._state.sessions[session.local_index] = known, session
        known.handshake_reported = False
        return freed

    def expire_keypairs(self, peer: PeerId) -> None:
        """Never send under the present keypairs again; still open what arrives under them."""
        self._state.peers[peer].keypairs.expire()

    def drop_keypairs(self, peer: PeerId) -> tuple[int, ...]:
        """Erase all keypairs of the peer; return their receiver indices."""
        return self._state.forget_sessions(self._state.peers[peer].keypairs.clear())

    def send_keepalive(self, peer: PeerId) -> None:
        """Send what is staged, or if nothing is, an empty packet (staged without a keypair)."""
        self._outbound.send_keepalive(self._state.peers[peer], self._clock.boot_ns())

    def send_staged(self, peer: PeerId) -> None:
        """Send what is staged; without a keypair report `NeedsHandshake` (again)."""
        known = self._state.peers[peer]
        known.handshake_reported = False
        known.refused = False
        self._outbound.send_staged(known, self._clock.boot_ns())

    def drop_staged(self, peer: PeerId) -> None:
        """Throw the staged packets away."""
        known = self._state.peers[peer]
        known.staged.clear()
        known.handshake_reported = False
        known.refused = False

    def refuse_staged(self, peer: PeerId) -> None:
        """Tell the senders of what is staged, throw it away, and do so with what follows."""
        known = self._state.peers[peer]
        known.handshake_reported = False
        known.refused = True
        self._outbound.refuse_staged(known, self._clock.boot_ns())

    # -- stamps and counters -----------------------------------------------------------------------

    def stamps(self, peer: PeerId) -> Stamps:
        """Return the peer's stamps."""
        known = self._state.peers[peer]
        return Stamps(
            known.last_sent_ns,
            known.last_received_ns,
            known.first_data_sent_unanswered_ns,
            known.first_data_received_unanswered_ns,
        )

    def counters(self, peer: PeerId) -> Counters:
        """Return the peer's counters."""
        known = self._state.peers[peer]
        return Counters(
            known.sent_bytes, known.received_bytes, known.sent_packets, known.received_packets
        )

    def faults(self, peer: PeerId) -> tuple[Fault, ...]:
        """Return what has gone wrong with this peer's packets, each reason at most once."""
        return tuple(self._state.peers[peer].faults.values())

    def has_session(self, peer: PeerId) -> bool:
        """Whether the peer has a current keypair that may still send."""
        current = self._state.peers[peer].keypairs.current
        return current is not None and current.can_send(self._clock.boot_ns())

    def staged_packets(self, peer: PeerId) -> int:
        """Return how many packets wait for a session with the peer."""
        return len(self._state.peers[peer].staged)

    def drop_counts(self) -> Mapping[str, int]:
        """Return what was dropped since the start, by the names of `Drops`."""
        return dataclasses.asdict(self._state.drops)

    def queue_depths(self) -> QueueDepths:
        """Return how much waits now."""
        staged = sum(len(peer.staged) for peer in self._state.peers.values())
        return QueueDepths(len(self._reception.queue), staged)

    def offloads(self) -> tuple[str, ...]:
        """Return the names of the kernel's offloads in use, sorted: those of UDP, if any."""
        if all(socket.max_segments == 1 for socket in self._sockets):
            return ()
        peers = self._state.peers.values()
        may_batch = not peers or any(peer.may_batch for peer in peers)
        return ("udp_gro", "udp_gso") if may_batch else ("udp_gro",)

    def disarm(self, peer: PeerId) -> None:
        """Report `BecameActive` when a first-data stamp is set from now on, or is set already."""
        known = self._state.peers[peer]
        known.check_armed = False
        if known.first_data_sent_unanswered_ns or known.first_data_received_unanswered_ns:
            self._state.became_active(known)

    def clear_data_sent_unanswered(self, peer: PeerId) -> None:
        """Forget the "first data packet sent" stamp: the control plane has acted on it."""
        self._state.peers[peer].first_data_sent_unanswered_ns = 0

    def clear_stamps(self, peer: PeerId) -> None:
        """Forget both "first data packet" stamps, and be disarmed."""
        known = self._state.peers[peer]
        known.first_data_sent_unanswered_ns = 0
        known.first_data_received_unanswered_ns = 0
        known.check_armed = False

    # -- handshakes --------------------------------------------------------------------------------

    def set_handshake_keys(self, keys: HandshakeKeys | None) -> None:
        """Check MACs with these keys; without any, drop every initiation and response."""
        self._reception.gate.set_keys(keys)

    def take_handshakes(self, limit: int) -> list[HandshakeMessage]:
        """Take at most `limit` queued handshake messages, oldest first."""
        taken = self._reception.queue.take(limit)
        self._settle_wakeup()
        return taken

    def load(self) -> Load:
        """Return whether handshake messages must prove where they come from, and what that cost."""
        gate = self._reception.gate
        return Load(gate.is_under_load(self._clock.boot_ns()), gate.cookies_sent)

    def send_to_peer(self, peer: PeerId, datagram: bytes) -> bool:
        """Send a handshake message to the peer's endpoint; False if it has none or it failed."""
        known = self._state.peers[peer]
        if message_type(datagram) is MessageType.INITIATION:
            self._state.initiation_sent(known, int.from_bytes(datagram[4:8], "little"))
        self._state.stamp_sent(known, self._clock.boot_ns(), is_data=False)
        known.sent_bytes += len(datagram)
        known.sent_packets += 1
        return self._outbound.transmit(known, datagram, HANDSHAKE_TRAFFIC_CLASS)

    def note_received(self, peer: PeerId, length: int, source: Endpoint) -> None:
        """Count and stamp an authenticated handshake message and roam to its `source`."""
        known = self._state.peers[peer]
        self._state.stamp_received(known, self._clock.boot_ns(), is_data=False)
        known.received_bytes += length
        known.received_packets += 1
        known.roam(source)

    # -- events ------------------------------------------------------------------------------------

    def event_fd(self) -> int:
        """Return a descriptor that is readable while events or handshake messages wait."""
        return self._state.wakeup.fileno()

    def drain_events(self) -> list[Report]:
        """Return all waiting events, oldest first."""
        events, self._state.events = self._state.events, []
        self._settle_wakeup()
        return events

    def _settle_wakeup(self) -> None:
        if not self._state.events and not self._reception.queue:
            self._state.wakeup.clear()
