"""One tunnel on an asyncio loop: the thin adapter between `Device` and the outside world.

It keeps the one timer the device asks for, hands over what the data plane reports, and owns the
UDP sockets, which come and go with the link. Everything runs on the loop's thread and never waits.

What takes long with thousands of peers is done in slices, and the loop does other work in between:
a change with `apply`, a snapshot with `reading`, one after the other. `set` and `get` do the same
at once; what is under way is then finished first, so that nobody sees, or gets, a half.
"""

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Sequence,
)
from dataclasses import replace
from typing import Final, Protocol

from wgd.addresses import Endpoint
from wgd.clock import Clock
from wgd.configuration import DeviceChange, DeviceState
from wgd.constants import MILLISECOND_NS, SECOND_NS
from wgd.core.device import Device, Slices, finish
from wgd.dataplane.interface import DatagramSocket, DataPlane, OffloadOff, PeerId, Report, TunClosed
from wgd.errors import ConfigurationError
from wgd.noise.handshake import KeyLog
from wgd.resolver import GetAddrInfo, Resolver
from wgd.status import DeviceStatus

logger = logging.getLogger(__name__)

_EVENTS_PER_TURN: Final = 64
_HANDSHAKES_PER_TURN: Final = 16
"""How many of each are handled before the loop may see to something else."""

_MAX_ROUTE_CHECKS: Final = 64
_ROUTE_CHECKS_PER_TURN: Final = 16
_PEERS_PER_ROUTE_CHECK: Final = 2048
"""How many pinned sources are looked at after a route change, half a millisecond each; the others
are dropped. So many are looked at, of so many peers, before the loop may see to something else."""

REBIND_PAUSE_SECONDS: Final = 1.0
MAX_REBIND_PAUSE_SECONDS: Final = 60.0
"""Sockets that could not be had are tried again after the first, then twice as long, up to this."""


class TunnelSocket(DatagramSocket, Protocol):
    """What a tunnel needs of a UDP socket beyond what the data plane needs."""

    def set_fwmark(self, mark: int) -> None:
        """Mark what leaves this socket (0: do not). Raises OSError."""

    def close(self) -> None:
        """Close the socket."""


OpenSockets = Callable[[int, int], tuple[Sequence[TunnelSocket], int]]
"""Given port (0: any) and fwmark, returns sockets for each family and the port they share.

Raises OSError.
"""

SourceIsValid = Callable[[Endpoint, int], bool]
"""Given an endpoint with a pinned source and the fwmark: whether answers may still leave there."""


class Tunnel:
    """A device at work. `dataplane` must be started on `loop`, and is closed by its owner.

    `on_gone` is called once, with a reason, when the TUN device has disappeared. `dataplane_name`
    and `workers` are for `status` only; `getaddrinfo` finds the hosts of endpoints, and
    `key_log` (`wgd.keylog`) is told the keys of every handshake.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dataplane: DataPlane,
        *,
        clock: Clock,
        open_sockets: OpenSockets,
        source_is_valid: SourceIsValid,
        on_gone: Callable[[str], None],
        dataplane_name: str = "",
        workers: int = 1,
        getaddrinfo: GetAddrInfo = socket.getaddrinfo,
        key_log: KeyLog | None = None,
    ) -> None:
        self._loop = loop
        self._dataplane = dataplane
        self._clock = clock
        self._open_sockets = open_sockets
        self._source_is_valid = source_is_valid
        self._on_gone = on_gone
        self._dataplane_name = dataplane_name
        self._workers = workers
        self._started_ns = clock.now().wall_ns
        self._mtu = 0
        self._resolver = Resolver(loop, self._resolved, getaddrinfo)
        self._device = Device(
            dataplane,
            os.urandom,
            look_up=self._resolver.look_up,
            key_log=key_log,
        )
        self._events: deque[Report] = deque()
        """Reported by the data plane and not handled yet."""
        self._more_events: asyncio.Handle | None = None
        """Handles more of them in the next turn of the loop."""
        self._sockets: Sequence[TunnelSocket] = ()
        self._link_is_up = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns: int | None = None
        self._is_closed = False
        self._route_check: asyncio.Handle | None = None
        self._routes_have_changed = False
        """Whether they have since the check under way began."""
        self._turn = asyncio.Lock()
        """Held by who changes or reads the configuration in slices."""
        self._finish_it: Callable[[], None] | None = None
        """Does at once what is left of that."""
        self._rebind_timer: asyncio.TimerHandle | None = None
        self._rebind_pause_seconds = REBIND_PAUSE_SECONDS
        self._suspended_ns = self._time_suspended()
        """How long the system had been suspended when that was last looked at."""
        loop.add_reader(dataplane.event_fd(), self._events_wait)

    def close(self) -> None:
        """Forget all sessions and close the sockets. What is being changed is finished first; a
        change that waits for its turn is still made, to no effect.
        """
        self._loop.remove_reader(self._dataplane.event_fd())
        self._events.clear()
        if self._more_events is not None:
            self._more_events.cancel()
        self._resolver.close()
        self._finish_under_way()
        self.link_changed(False)
        self._device.tell_all(self._clock.now())
        self._cancel_rebind()
        self._is_closed = True
        if self._route_check is not None:
            self._route_check.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- configuration -----------------------------------------------------------------------------

    def get(self) -> DeviceState:
        """Return a consistent snapshot, made at once."""
        self._finish_under_way()
        return self._device.state()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[DeviceState]:
        """Give a consistent snapshot whose peers are made when they are looked at.

        As long as it is in use, changes wait: look at some peers, let the loop do other work, and
        go on.
        """
        async with self._turn:
            peers = self._device.peer_states()
            self._finish_it = peers.complete
            try:
                yield replace(self._device.settings(), peers=peers)
            finally:
                self._finish_it = None

    def settings(self) -> DeviceState:
        """Return the device's own values, without its peers."""
        return self._device.settings()

    def has_peers(self, public_keys: Collection[bytes]) -> bool:
        """Whether each of these keys is a peer's."""
        return self._device.has_peers(public_keys)

    def status(self) -> DeviceStatus:
        """Return all that is known here, without any secret; the process fills in the rest.

        That is: interface, version, pid and log level.
        """
        return replace(
            self._device.status(self._clock.now()),
            started_ns=self._started_ns,
            mtu=self._mtu,
            is_listening=bool(self._sockets),
            dataplane=self._dataplane_name,
            workers=self._workers,
        )

    def set(self, change: DeviceChange) -> None:
        """Apply a change whole and at once, or raise ConfigurationError and change nothing."""
        self._finish_under_way()
        self._finish_change(self._begin(change))

    async def apply(self, change: DeviceChange) -> None:
        """As `set`, but in slices, when those before us are done.

        Once begun it is applied whole; who is cancelled while it waits blocks until that is done.
        """
        async with self._turn:
            slices = self._begin(change)
            self._finish_it = lambda: self._finish_change(slices)
            try:
                while True:
                    if not self._do_slice(slices):
                        break
                    await asyncio.sleep(0)
            finally:
                self._finish_change(slices)
                self._finish_it = None

    def wake(self, public_keys: Iterable[bytes]) -> None:
        """Have sessions with these peers, and soon."""
        self._device.wake(public_keys, self._clock.now())
        self._rearm()

    def _finish_under_way(self) -> None:
        if self._finish_it is not None:
            self._finish_it()

    def _do_slice(self, slices: Slices) -> bool:
        """Do one slice; whether there may be more."""
        try:
            slices.send(self._clock.now())
        except StopIteration:
            return False
        self._rearm()
        return True

    def _finish_change(self, slices: Slices) -> None:
        finish(slices, self._clock.now())
        if self._sockets:  # else nothing has changed: sessions outlive sockets that are waited for
            self._follow_link()
        self._rearm()

    def _begin(self, change: DeviceChange) -> Slices:
        """Begin to apply a change, or raise ConfigurationError and change nothing.

        What can fail comes first: a new port is bound before the old one is given up.
        """
        self._device.check(change)
        state = self._device.settings()
        fwmark = state.fwmark if change.fwmark is None else change.fwmark
        port = state.listen_port if change.listen_port is None else change.listen_port
        if self._link_is_up and (port != state.listen_port or not self._sockets):
            try:
                port = self._open_and_use(port, fwmark)
            except OSError as error:
                # Without a socket as before, everything else can be changed.
                if change.listen_port is not None:
                    raise ConfigurationError(
                        errno.EADDRINUSE, f"cannot listen on UDP port {port}: {error.strerror}"
                    ) from error
            else:
                change = replace(change, listen_port=port)
                self._device.sockets_replaced(self._clock.now())
        elif fwmark != state.fwmark:
            self._set_fwmark(fwmark, state.fwmark)
        now = self._clock.now()
        slices = self._device.configure_in_slices(change, now)
        next(slices, None)
        return slices

    def _set_fwmark(self, fwmark: int, previous: int) -> None:
        try:
            for sock in self._sockets:
                sock.set_fwmark(fwmark)
            # Another mark may mean another route: attaching anew forgets the pinned sources.
            self._dataplane.attach_sockets(self._sockets)
        except OSError as error:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.set_fwmark(previous)
            raise ConfigurationError(
                errno.EADDRINUSE, f"cannot set fwmark {fwmark}: {error.strerror}"
            ) from error

    def _open_and_use(self, port: int, fwmark: int) -> int:
        """Use new sockets and return their port. Raises OSError, and keeps those before."""
        sockets, port = self._open_sockets(port, fwmark)
        try:
            self._use_sockets(sockets)
        except OSError:
            for sock in sockets:
                sock.close()
            raise
        return port

    def _use_sockets(self, sockets: Sequence[TunnelSocket]) -> None:
        self._dataplane.attach_sockets(sockets)
        previous, self._sockets = self._sockets, sockets
        for sock in previous:
            sock.close()
        if sockets:
            self._cancel_rebind()

    # -- the world changes -------------------------------------------------------------------------

    def link_changed(self, is_up: bool) -> None:
        """Open the sockets and start the peers, or the reverse."""
        if is_up == self._link_is_up:
            return
        self._link_is_up = is_up
        logger.info("event=%s", "link_up" if is_up else "link_down")
        settings = self._device.settings()
        if is_up:
            try:
                port = self._open_and_use(settings.listen_port, settings.fwmark)
            except OSError as error:
                self._rebind_later("listen_failed", settings.listen_port, error)
                return
            self._device.configure(DeviceChange(listen_port=port), self._clock.now())
        self._follow_link()
        if not is_up:
            self._use_sockets(())
            self._cancel_rebind()
        self._rearm()

    def rebind(self) -> None:
        """Replace the sockets by new ones on the same port: the network has become another one.

        On macOS the old ones may stay dead after sleep or a change of Wi-Fi. Whoever has sent
        something lately gets a keepalive, which tells him where we are now.
        """
        self._cancel_rebind(keep_pause=True)
        if not self._link_is_up:
            return
        settings = self._device.settings()
        self._use_sockets(())  # first: the port is still theirs
        try:
            port = self._open_and_use(settings.listen_port, settings.fwmark)
        except OSError as error:
            self._rebind_later("rebind_failed", settings.listen_port, error)  # the sessions stay
            return
        now = self._clock.now()
        self._device.configure(DeviceChange(listen_port=port), now)
        if port != settings.listen_port:
            self._device.sockets_replaced(now)
        self._follow_link()
        self._device.network_changed((), now)
        self._device.greet(now)
        self._timer_ns = None  # after a sleep the loop's timer is late
        self._rearm()

    def _rebind_later(self, event: str, port: int, error: OSError) -> None:
        """Say that there are no sockets, and try again: the next change of network and every `set`
        do so, too.
        """
        pause_seconds = self._rebind_pause_seconds
        logger.error(
            "event=%s port=%d again_after_seconds=%d reason=%s",
            *(event, port, pause_seconds, error.strerror),
        )
        self._rebind_timer = self._loop.call_later(pause_seconds, self.rebind)
        self._rebind_pause_seconds = min(2 * pause_seconds, MAX_REBIND_PAUSE_SECONDS)

    def _cancel_rebind(self, *, keep_pause: bool = False) -> None:
        if self._rebind_timer is not None:
            self._rebind_timer.cancel()
            self._rebind_timer = None
        if not keep_pause:
            self._rebind_pause_seconds = REBIND_PAUSE_SECONDS

    def _follow_link(self) -> None:
        self._device.set_link_up(self._link_is_up and bool(self._sockets), self._clock.now())

    def mtu_changed(self, mtu: int) -> None:
        """Pad packets to at most the TUN's new MTU (bytes)."""
        logger.info("event=mtu_changed mtu=%d", mtu)
        self._mtu = mtu
        self._dataplane.set_mtu(mtu)

    def routes_changed(self) -> None:
        """Forget every pinned source that no longer leads to its endpoint, and tell the peer.

        What could not be sent before may be sent now.
        """
        self._routes_have_changed = True
        if self._route_check is None:
            self._check_routes(self._find_moved())

    def _check_routes(self, search: Generator[None, None, Collection[PeerId]]) -> None:
        """Search on for a slice; when the search is over, act."""
        self._route_check = None
        try:
            next(search)
        except StopIteration as found:
            self._device.network_changed(found.value, self._clock.now())
            self._rearm()
            search = self._find_moved()
            if not self._routes_have_changed:
                return
        self._route_check = self._loop.call_soon(self._check_routes, search)

    def _find_moved(self) -> Generator[None, None, Collection[PeerId]]:
        """Return the peers whose pinned source does not lead to them any more; yields at times."""
        self._routes_have_changed = False
        fwmark = self._device.settings().fwmark
        verdicts: dict[tuple[object, ...], bool] = {}
        moved = set()
        for number, peer in enumerate(self._device.peer_ids(), 1):
            if number % _PEERS_PER_ROUTE_CHECK == 0:
                yield
            endpoint = self._device.endpoint(peer)
            if endpoint is None or endpoint.source is None:
                continue
            question = (endpoint.host, endpoint.scope_id, endpoint.source)
            if question not in verdicts:
                if len(verdicts) == _MAX_ROUTE_CHECKS:
                    self._dataplane.clear_source(peer)
                    continue
                verdicts[question] = self._source_is_valid(endpoint, fwmark)
                if len(verdicts) % _ROUTE_CHECKS_PER_TURN == 0:
                    yield
            if not verdicts.get(question, True):
                moved.add(peer)
        return moved

    def woke_up(self) -> None:
        """The system was suspended, or its clock was set: look at everything now.

        The loop's timer may be late: its clock stands still while the system is suspended.
        """
        suspended_ns = self._time_suspended()
        asleep_ns = max(suspended_ns - self._suspended_ns, 0)
        self._suspended_ns = suspended_ns
        logger.info("event=woke_up asleep_seconds=%d", asleep_ns // SECOND_NS)
        self._device.woke_up(self._clock.now(), asleep_ns)
        self._timer_ns = None
        self._rearm()

    def cloned(self) -> None:
        """This machine may be a copy: send nothing more under keys that the original has, too."""
        logger.info("event=machine_copied")
        self._device.cloned(self._clock.now())
        self._rearm()

    def _time_suspended(self) -> int:
        """Return how long this system was suspended since it was started, give or take."""
        return self._clock.boot_ns() - int(self._loop.time() * SECOND_NS)

    def _resolved(self, public_key: bytes, host: str, port: int, found: Sequence[Endpoint]) -> None:
        self._device.resolved(public_key, host, port, found, self._clock.now())
        self._rearm()

    # -- the loop ----------------------------------------------------------------------------------

    def _events_wait(self) -> None:
        if self._more_events is None:  # else the next turn sees to these, too
            self._handle_events()

    def _handle_events(self) -> None:
        self._more_events = None
        now = self._clock.now()
        self._events.extend(self._dataplane.drain_events())
        for _ in range(min(len(self._events), _EVENTS_PER_TURN)):
            event = self._events.popleft()
            if isinstance(event, TunClosed):
                self._on_gone(event.reason)
            elif isinstance(event, OffloadOff):
                logger.info("event=offload_off name=%s reason=%r", event.name, event.reason)
            else:
                self._device.on_event(event, now)
        if self._events:
            self._more_events = self._loop.call_soon(self._handle_events)
        # What is left keeps the descriptor readable: the loop comes back after other work.
        for message in self._dataplane.take_handshakes(_HANDSHAKES_PER_TURN):
            self._device.receive_handshake(message, now)
        self._rearm()

    def _handle_deadline(self) -> None:
        self._timer = None
        self._timer_ns = None
        self._device.on_deadline(self._clock.now())
        self._rearm()

    def _rearm(self) -> None:
        """Make the loop wake us at the device's next deadline, and only then."""
        if self._is_closed:
            return
        deadline_ns = self._device.next_deadline()
        if self._timer is not None:
            if deadline_ns == self._timer_ns:
                return
            self._timer.cancel()
            self._timer = None
        self._timer_ns = deadline_ns
        if deadline_ns is not None:
            # Rounded up to the loop's resolution: a timer that fires early would spin.
            delay_ms = math.ceil((deadline_ns - self._clock.boot_ns()) / MILLISECOND_NS)
            self._timer = self._loop.call_later(max(delay_ms, 0) / 1000, self._handle_deadline)
