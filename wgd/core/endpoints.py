"""Where one peer may be found: what was configured, what its name stood for, where it has roamed.

The data plane knows where the peer is now: where it was last heard from. Here is where to look for
it when it is heard no more, sans-IO:

    next_after(now)     now -> configured -> the others of its name, IPv4 and IPv6 in turns
                            -> what was configured before its name moved -> now …
    take_lookup         is it time to look its name up again?
    found               what the name stands for now; a move is followed
"""

import errno
import itertools
from collections.abc import Iterable, Sequence
from typing import Final

from wgd.addresses import Endpoint
from wgd.constants import SECOND_NS
from wgd.errors import ConfigurationError
from wgd.shown import shown

LOOKUP_INTERVAL_NS: Final = 30 * SECOND_NS
"""A peer that is not heard from has its name looked up at most this often."""

LOOKUP_PAUSE_NS: Final = 5 * SECOND_NS
"""After a change of network it may be looked up again this soon."""

MAX_FOUND: Final = 16
"""Addresses of one name that are tried; what a name server says more is left out."""


MAX_HOST_SIZE: Final = 255


class Endpoints:
    """The places of one peer. An `Endpoint` given to or by it has no pinned source."""

    __slots__ = (
        "_found",
        "_given",
        "_home",
        "_is_looking_up",
        "_looked_up_ns",
        "configured",
        "host",
        "lookup_after_ns",
    )

    def __init__(self) -> None:
        self.configured: Endpoint | None = None
        """What was set, or the first of what its name stands for now."""
        self.host: str | None = None
        """The `name:port` it was set as, if it was."""
        self._given: Endpoint | None = None
        """What was set: a name server that lies for a while must not make us forget it."""
        self._found: tuple[Endpoint, ...] = ()
        self._home: Endpoint | None = None
        """Where the peer was when it fell silent."""
        self._is_looking_up = False
        self._looked_up_ns = 0
        """When (boot time) the name was last looked up."""
        self.lookup_after_ns = 0
        """When (boot time) the name may be looked up again."""

    def configure(self, endpoint: Endpoint | None, host: str | None) -> None:
        """Use what a change says: an endpoint without a name ends the use of any before.

        A name without an endpoint (None) leaves the endpoint as it is until it is looked up.
        """
        if endpoint is not None:
            self.configured = self._given = endpoint
        if host != self.host or endpoint is not None:
            self._found = ()
            self.lookup_after_ns = 0
            self._is_looking_up = False
        self.host = host

    def __str__(self) -> str:
        return self.host or ("" if self.configured is None else str(self.configured))

    # -- the next place ----------------------------------------------------------------------------

    def next_after(self, current: Endpoint) -> Endpoint:
        """Return where to look when an initiation to `current` was in vain: all in turns."""
        current = current._replace(source=None)
        ring = self._ring()
        if current not in ring:  # it has been there since
            self._home = current
            ring = self._ring()
        return ring[(ring.index(current) + 1) % len(ring)]

    def give_up(self) -> Endpoint | None:
        """Return where to begin after all were tried for long; None where it is now."""
        self._home = None
        return self.configured

    def heard(self) -> None:
        """The peer has answered: where it is now is right."""
        self._home = None

    def _ring(self) -> list[Endpoint]:
        ring = (self._home, self.configured, *self._found, self._given)
        return list(dict.fromkeys(place for place in ring if place is not None))

    # -- its name ----------------------------------------------------------------------------------

    def take_lookup(self, now_ns: int) -> tuple[str, int] | None:
        """Return the host and the port to look up now, None without a name or while it is too soon.

        `found` must follow.
        """
        if self.host is None or self._is_looking_up or now_ns < self.lookup_after_ns:
            return None
        self._is_looking_up = True
        self._looked_up_ns = now_ns
        self.lookup_after_ns = now_ns + LOOKUP_INTERVAL_NS
        return parse_host(self.host)

    def allow_lookup(self, now_ns: int) -> None:
        """The network has changed: look the name up again soon, if that is wanted."""
        pause_ends_ns = self._looked_up_ns + LOOKUP_PAUSE_NS
        self.lookup_after_ns = min(self.lookup_after_ns, max(now_ns, pause_ends_ns))

    def waits_for(self, host: str, port: int) -> bool:
        """Whether this was taken to be looked up, and nothing was found yet."""
        return (
            self._is_looking_up and self.host is not None and parse_host(self.host) == (host, port)
        )

    def found(self, endpoints: Sequence[Endpoint]) -> Endpoint | None:
        """Take what the name stands for now (nothing: it was not found).

        Returns where the peer must have moved to, None if what was configured still holds.
        """
        self._is_looking_up = False
        if not endpoints:
            return None
        self._found = tuple(itertools.islice(_in_turns(endpoints), MAX_FOUND))
        if self.configured in self._found:
            return None
        self.configured = self._found[0]
        return self.configured


def parse_host(text: str) -> tuple[str, int]:
    """Return host and port of `name:port`.

    Raises ConfigurationError (EINVAL) for anything else.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    is_name = 0 < len(host) <= MAX_HOST_SIZE and host.isprintable() and " " not in host
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65_535
    if not (is_name and is_port):
        raise ConfigurationError(
            errno.EINVAL,
            f"an endpoint's host must be a name, a colon and a port in 1..65535, not {shown(text)}",
        )
    return host, int(port)


def _in_turns(endpoints: Iterable[Endpoint]) -> Iterable[Endpoint]:
    """Yield each once: IPv4 and IPv6 in turns, of each the earlier ones first."""
    once = list(dict.fromkeys(endpoints))
    first_is_ipv6 = once[0].is_ipv6
    same = [endpoint for endpoint in once if endpoint.is_ipv6 == first_is_ipv6]
    others = [endpoint for endpoint in once if endpoint.is_ipv6 != first_is_ipv6]
    for pair in itertools.zip_longest(same, others):
        yield from (endpoint for endpoint in pair if endpoint is not None)
