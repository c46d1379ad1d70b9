"""Finds one peer, sans-IO: sends to where it may be, and has its name looked up when it is missed.

`Endpoints` knows the places, the data plane which one is used; this is what moves from one to the
next. Whatever is received from the peer, authenticated, wins over all of it.
"""

import base64
import errno
import logging
from collections.abc import Callable, Sequence
from typing import Final

from wgd.addresses import Endpoint
from wgd.clock import Instant
from wgd.core.endpoints import Endpoints
from wgd.dataplane.interface import DataPlane, PeerId
from wgd.diagnosis import FailureLog, FailureReason

logger = logging.getLogger(__name__)

LookUp = Callable[[bytes, str, int], None]
"""Given a peer's public key, a host and a port: begins to look it up.

The answer, also that there is none, comes through `Device.resolved`, later.
"""

_NO_WAY: Final = frozenset(
    {
        *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL),
        *(errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM),
    }
)
"""What the system says when it has no way to an endpoint; it may have one to another."""


def label(public_key: bytes) -> str:
    """Return what the log calls the peer with this public key."""
    text = base64.b64encode(public_key).decode()
    return f"peer({text[:4]}…{text[39:43]})"


class Locator:
    """Where one peer is looked for. Its repr is what the log calls the peer."""

    __slots__ = (
        "_dataplane",
        "_failures",
        "_look_up",
        "_peer",
        "_places",
        "_public_key",
    )

    def __init__(
        self,
        peer: PeerId,
        public_key: bytes,
        *,
        dataplane: DataPlane,
        failures: FailureLog,
        look_up: LookUp,
    ) -> None:
        self._peer = peer
        self._public_key = public_key
        self._dataplane = dataplane
        self._failures = failures
        self._look_up = look_up
        self._places = Endpoints()

    def __repr__(self) -> str:
        return label(self._public_key)

    def __str__(self) -> str:
        """Return what was configured: `host:port`, the host perhaps a name; "" for nothing."""
        return str(self._places)

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the peer is now, with its pinned source."""
        return self._dataplane.endpoint(self._peer)

    @property
    def has_host(self) -> bool:
        """Whether there is a name to look up."""
        return self._places.host is not None

    @property
    def lookup_after_ns(self) -> int:
        """When (boot time) the name may be looked up again."""
        return self._places.lookup_after_ns

    def configure(self, endpoint: Endpoint | None, host: str | None) -> None:
        """Look at `endpoint` (None: where the peer is), and at what `host` stands for."""
        self._places.configure(endpoint, host)
        if endpoint is not None:
            self._dataplane.set_endpoint(self._peer, endpoint)

    def refuse(self) -> None:
        """Nobody knows where the peer is: say so to those who have something for it."""
        self._dataplane.refuse_staged(self._peer)

    # -- from place to place -----------------------------------------------------------------------

    def heard(self) -> None:
        """The peer has answered: where it is now is right."""
        self._places.heard()

    def was_heard_since(self, since_ns: int) -> bool:
        """Whether anything authenticated has come from the peer since then (boot time)."""
        return self._dataplane.stamps(self._peer).last_received_ns >= max(since_ns, 1)

    def try_next(self, asked_ns: int) -> None:
        """It has not answered what was sent at `asked_ns`: try the next place, perhaps the same.

        Where it has been heard from since, though not with an answer, is right.
        """
        if (endpoint := self.endpoint) is None:
            return
        if self.was_heard_since(asked_ns):
            self._dataplane.clear_source(self._peer)
        else:
            self._try_at(self._places.next_after(endpoint))

    def give_up(self) -> None:
        """It has not answered anywhere: begin where it was configured to be, another time."""
        if (place := self._places.give_up()) is not None:
            self._try_at(place)

    def _try_at(self, place: Endpoint) -> None:
        """Send there from now on; the path may have changed, so the kernel chooses the source."""
        endpoint = self.endpoint
        if endpoint is not None and endpoint._replace(source=None) == place:
            self._dataplane.clear_source(self._peer)
            return
        logger.debug("%r event=endpoint_tried endpoint=%s", self, place)
        self._dataplane.set_endpoint(self._peer, place)

    def send(self, datagram: bytes, now: Instant) -> bool:
        """Send a handshake message to where the peer is, or if the system has no way there to the
        next place; return whether the system took it.
        """
        tried: list[Endpoint] = []
        while not self._dataplane.send_to_peer(self._peer, datagram):
            endpoint = self.endpoint
            if endpoint is None or not self.has_no_way(now):
                return False
            tried.append(endpoint._replace(source=None))
            place = self._places.next_after(endpoint)
            if place in tried:
                self._try_at(tried[0])
                return False
            self._try_at(place)
        return True

    def has_no_way(self, now: Instant) -> bool:
        """Whether the system has said at `now`, or since, that it cannot reach the endpoint."""
        return any(
            fault.reason is FailureReason.SEND_FAILED
            and fault.last_ns >= now.boot_ns
            and fault.errno in _NO_WAY
            for fault in self._dataplane.faults(self._peer)
        )

    # -- its name ----------------------------------------------------------------------------------

    def missed(self, now: Instant) -> None:
        """The peer is not heard from: find out what its name stands for now, if it is time."""
        if (wanted := self._places.take_lookup(now.boot_ns)) is not None:
            logger.debug("%r event=lookup host=%s", self, wanted[0])
            self._look_up(self._public_key, *wanted)

    def network_changed(self, now: Instant) -> None:
        """What could not be found may be found now."""
        self._places.allow_lookup(now.boot_ns)

    def waits_for(self, host: str, port: int) -> bool:
        """Whether this was to be looked up, and nothing was found yet."""
        return self._places.waits_for(host, port)

    def found(self, endpoints: Sequence[Endpoint], now: Instant) -> Endpoint | None:
        """Take what the name stands for now, nothing if it was not found.

        Returns where the peer must have moved to, None if what was configured still holds.
        """
        if not endpoints:
            self._failures.note(FailureReason.HOST_NOT_FOUND, now.wall_ns, str(self._places))
            logger.info("%r event=host_not_found host=%s", self, self._places)
        return self._places.found(endpoints)

    def move(self, place: Endpoint) -> None:
        """Send to `place`, which the name has moved to."""
        logger.info("%r event=endpoint_moved endpoint=%s", self, place)
        self._try_at(place)
