"""What the rules judge: one moment of a device, its system and the paths to its peers, as values.

What could not be looked at is None or missing, and `Unseen` says why; a rule says nothing then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from wgd.status import DeviceStatus


class Source(StrEnum):
    """Who told us about the device."""

    STATUS = "status"
    """wgd, over its UAPI socket: everything."""
    WATCH = "watch"
    """wgd, over the socket for watching without root: everything but the system's secrets."""
    GET = "get"
    """Another daemon: what `wg show` shows. The rest of its status means nothing."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be looked at, and why, both fit for a sentence."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface; `addresses` are `address/length`, link-local ones included."""

    index: int
    name: str
    mtu: int
    is_up: bool
    kind: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """The kernel's answer to "how would a packet get there?".

    `error` is a positive errno, 0 if there is a way. `interface` is "" without one; `mtu` is what
    the kernel believes of the path (its own knowledge included), or of the interface.
    """

    interface: str = ""
    mtu: int = 0
    error: int = 0
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class EndpointPath:
    """How datagrams get to one peer: with the device's mark, and as an unmarked packet would."""

    marked: Route
    unmarked: Route


@dataclass(frozen=True, slots=True)
class FirewallRule:
    """A rule (or a policy) that drops what we send or receive; `is_certain` if nothing in it is
    beyond what was understood. `hook` is `input` or `output`; `public_key` is the peer's to whom it
    matters, "" for all of them.
    """

    hook: str
    text: str
    is_certain: bool
    public_key: str = ""


@dataclass(frozen=True, slots=True)
class NameAnswer:
    """What the resolver says of a host name now: addresses, or an error in words."""

    addresses: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class EndpointProbe:
    """What an empty datagram and a ping to an endpoint brought.

    `error` is the errno of sending, or of the ICMP error that came back; 0 if nothing did, which is
    how WireGuard behaves. `answers_ping` is None if no ping could be sent.
    """

    error: int = 0
    answers_ping: bool | None = None


@dataclass(frozen=True, slots=True)
class MtuProbe:
    """Which sizes of IP packets, in bytes and never cut, were answered on the way to `host`.

    `wanted` is the size that is needed; `largest` the largest that was answered, 0 if none was.
    """

    host: str
    wanted: int
    largest: int
    is_inside: bool = False
    """Whether it went through the tunnel."""


@dataclass(frozen=True, slots=True)
class FilePeer:
    """A peer as the configuration file has it."""

    public_key: str
    allowed_ips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class System:
    """What the system's own settings say; None where they could not be read."""

    reverse_path_filter: Mapping[str, int] = field(default_factory=dict)
    """By interface, the greater of its own and that of `all`: 1 strict, 2 loose."""
    marks_are_valid_sources: bool | None = None
    largest_receive_buffer: int | None = None
    overflowed_datagrams: int = 0
    """How many datagrams the UDP sockets on the listen port had no room for."""
    software_made_ns: int = 0
    """When the installed wgd was made, at the latest: the clock cannot be before that."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one interface. `now_ns` is Unix time on this machine.

    Keys of `paths`, `probes`, `mtus`, `names` and `seen_endpoints` are public keys of peers, those
    of `prefix_routes` allowed IPs.
    """

    interface: str
    now_ns: int
    source: Source = Source.STATUS
    device: DeviceStatus | None = None
    link: Link | None = None
    link_is_elsewhere: bool = False
    """The interface is not in the network namespace that was looked at, but the daemon is well."""
    daemon_is_elsewhere: bool = False
    """The daemon's own sockets are in another network namespace, or that cannot be told."""
    refusal: str = ""
    """Why nobody answers for the interface, without a `device`."""
    paths: Mapping[str, EndpointPath] = field(default_factory=dict)
    prefix_routes: Mapping[str, Route] = field(default_factory=dict)
    system: System = System()
    firewall: tuple[FirewallRule, ...] = ()
    file_name: str = ""
    file_peers: tuple[FilePeer, ...] = ()
    seen_endpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where each peer was while we watched, in order, without repetitions in a row."""
    names: Mapping[str, NameAnswer] = field(default_factory=dict)
    probes: Mapping[str, EndpointProbe] = field(default_factory=dict)
    mtus: Mapping[str, tuple[MtuProbe, ...]] = field(default_factory=dict)
    unseen: tuple[Unseen, ...] = ()
