"""What a device is doing, beyond its configuration: for metrics, `wgdctl top` and `wgdctl doctor`.

A status holds no secret, so whoever may watch may see all of it. In JSON, keys are base64, prefixes
and endpoints text, and times Unix time in nanoseconds (0: never). Unknown names are ignored when it
is read, so that tools and daemons of different versions understand each other.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wgd.diagnosis import Failure, FailureReason

LATENCY_BOUNDS_SECONDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 30.0, 90.0),
)
"""Upper bounds of the buckets of a handshake's latency; the last bucket has none."""


@dataclass(frozen=True, slots=True)
class Handshakes:
    """How many handshakes there were, by what became of them, since the start.

    `initiated` counts initiations sent, `answered` those of them that were answered, `accepted`
    initiations of others that we answered, `refused` messages that were not authentic or not fresh,
    `unanswered` initiations that were not answered in time, `given_up` attempts that ended without
    a session. `cookies_sent` and `cookies_received` are cookie replies. An initiation that the
    system did not take is none of these.
    """

    initiated: int = 0
    answered: int = 0
    accepted: int = 0
    refused: int = 0
    unanswered: int = 0
    given_up: int = 0
    cookies_sent: int = 0
    cookies_received: int = 0


@dataclass(frozen=True, slots=True)
class Latency:
    """A histogram of seconds from the first initiation of an attempt to its answer.

    `counts` has one more entry than `LATENCY_BOUNDS_SECONDS`, each bucket for itself.
    """

    counts: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_SECONDS) + 1)
    sum_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer. `endpoint` is where it is now, `configured_endpoint` what was set: `host:port`, the
    host perhaps a name; both "" if there is none. `has_session` says whether packets can go out
    now without a handshake; `unanswered_initiations` counts those in a row, also such as the system
    did not take. `allowed_ips` need not be made before they are looked at: there may be very many.
    """

    public_key: str
    endpoint: str = ""
    configured_endpoint: str = ""
    allowed_ips: Sequence[str] = ()
    persistent_keepalive_seconds: int = 0
    has_preshared_key: bool = False
    has_session: bool = False
    last_handshake_ns: int = 0
    last_received_ns: int = 0
    last_sent_ns: int = 0
    unanswered_initiations: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    sent_packets: int = 0
    staged_packets: int = 0
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One device. `public_key` is "" without a private key; `drops` counts dropped packets by the
    names of `wgd.dataplane.portable_state.Drops`; `queues` gives what waits now, by queue, and
    `queue_limits` how much may; `offloads` names those in use; `failures` are those of no peer.
    `peers` need not be made before they are looked at: there may be very many.
    """

    interface: str
    version: str = ""
    pid: int = 0
    started_ns: int = 0
    now_ns: int = 0
    public_key: str = ""
    listen_port: int = 0
    fwmark: int = 0
    mtu: int = 0
    is_up: bool = False
    is_listening: bool = False
    is_under_load: bool = False
    log_level: str = ""
    dataplane: str = ""
    workers: int = 1
    offloads: tuple[str, ...] = ()
    handshakes: Handshakes = Handshakes()
    latency: Latency = Latency()
    drops: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)
    queue_limits: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    peers: Sequence[PeerStatus] = ()


PEERS_PER_PART: Final = 256
PREFIXES_PER_PART: Final = 4096
"""How many peers are looked at, and how many of their allowed IPs rendered, before the caller may
do something else (a few milliseconds)."""

MAX_NUMBER: Final = 2**64 - 1
"""Counters, times and sizes are at most this."""

_PEER_FIELDS: Final = tuple(each.name for each in dataclasses.fields(PeerStatus))


def as_json(status: DeviceStatus) -> dict[str, Any]:
    """Return a status as what `json.dumps` takes."""
    return {**_without_peers(status), "peers": [_peer_as_json(peer) for peer in status.peers]}


def json_parts(status: DeviceStatus) -> Iterator[str]:
    """Yield `as_json` as JSON text on one line, ASCII only, in parts to be joined.

    Between two of them other work may be done: 65,536 peers take seconds.
    """
    head = json.dumps(_without_peers(status))
    yield f'{head[:-1]}, "peers": ['
    for first in range(0, len(status.peers), PEERS_PER_PART):
        if first:
            yield ", "
        yield from _peer_parts(status.peers[first : first + PEERS_PER_PART])
    yield "]}"


def from_json(document: object) -> DeviceStatus:
    """Return the status that `as_json` gave, also if an older or newer wgd did.

    The document may come from anywhere: numbers that cannot be are refused, and what cannot be
    printed is escaped. Raises ValueError if it is none.
    """
    device = _mapping(document, "the status")
    return DeviceStatus(
        **_plain_values(DeviceStatus, device),
        offloads=_texts(device, "offloads"),
        handshakes=Handshakes(**_plain_values(Handshakes, _part(device, "handshakes"))),
        latency=_latency(_part(device, "latency")),
        drops=_numbers(device, "drops"),
        queues=_numbers(device, "queues"),
        queue_limits=_numbers(device, "queue_limits"),
        failures=_failures(device),
        peers=tuple(_peer(_mapping(peer, "a peer")) for peer in _list(device, "peers")),
    )


def _without_peers(status: DeviceStatus) -> dict[str, Any]:
    document = dataclasses.asdict(dataclasses.replace(status, peers=()))
    del document["peers"]
    return document


def _peer_parts(peers: Sequence[PeerStatus]) -> Iterator[str]:
    """Yield peers as JSON with commas between them, in parts of few allowed IPs."""
    texts: list[str] = []
    prefixes = 0
    for number, peer in enumerate(peers):
        document = _without_allowed_ips(peer)
        del document["allowed_ips"]
        separator = ", " if number else ""
        texts.append(f'{separator}{json.dumps(document)[:-1]}, "allowed_ips": [')
        for first in range(0, len(peer.allowed_ips), PREFIXES_PER_PART):
            some = peer.allowed_ips[first : first + PREFIXES_PER_PART]
            texts.append((", " if first else "") + json.dumps(tuple(some))[1:-1])
            prefixes += len(some)
            if prefixes >= PREFIXES_PER_PART:
                yield "".join(texts)
                texts.clear()
                prefixes = 0
        texts.append("]}")
    yield "".join(texts)


def _peer_as_json(peer: PeerStatus) -> dict[str, Any]:
    return {**_without_allowed_ips(peer), "allowed_ips": tuple(peer.allowed_ips)}


def _without_allowed_ips(peer: PeerStatus) -> dict[str, Any]:
    # Many times as fast as `asdict`, which copies every value.
    document: dict[str, Any] = {name: getattr(peer, name) for name in _PEER_FIELDS}
    document["allowed_ips"] = ()
    document["failures"] = [dataclasses.asdict(failure) for failure in peer.failures]
    return document


# -- reading ---------------------------------------------------------------------------------------


def _peer(document: Mapping[str, Any]) -> PeerStatus:
    return PeerStatus(
        **_plain_values(PeerStatus, document),
        allowed_ips=_texts(document, "allowed_ips"),
        failures=_failures(document),
    )


def _latency(document: Mapping[str, Any]) -> Latency:
    counts = tuple(_plain(int, count, "a count") for count in _list(document, "counts"))
    if len(counts) != len(LATENCY_BOUNDS_SECONDS) + 1:
        return Latency()  # another version's buckets mean something else
    return Latency(counts, **_plain_values(Latency, document))


def _failures(document: Mapping[str, Any]) -> tuple[Failure, ...]:
    failures = [_mapping(failure, "a failure") for failure in _list(document, "failures")]
    return tuple(
        Failure(reason=_REASONS[reason], **_plain_values(Failure, failure))
        for failure in failures
        if (reason := _plain(str, failure.get("reason"), "reason")) in _REASONS
    )


_REASONS: Final = {reason.value: reason for reason in FailureReason}


def _plain_values(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values of `document` that are plain ones of `kind`, a dataclass.

    Raises ValueError for a wrong one, or for one that is missing and must be there.
    """
    values: dict[str, Any] = {}
    for name, (type_, is_required) in _plain_fields(kind).items():
        if name in document:
            values[name] = _plain(type_, document[name], name)
        elif is_required:
            raise ValueError(f"{name} is missing")
    return values


@functools.cache
def _plain_fields(kind: type) -> dict[str, tuple[type, bool]]:
    """Return, of each number, truth and text of `kind`, the type and whether it must be there."""
    return {
        each.name: (each.type, each.default is dataclasses.MISSING)
        for each in dataclasses.fields(kind)
        if isinstance(each.type, type) and each.type in (bool, int, float, str)
    }


def _plain(type_: type, value: Any, name: str) -> Any:
    """Return `value` if it is of `type_`, a whole number also for a float. Raises ValueError."""
    if type_ is str and isinstance(value, str):
        return value if value.isprintable() else value.encode("unicode_escape").decode("ascii")
    if type_ is bool and isinstance(value, bool):
        return value
    is_number = type(value) is int or (type_ is float and type(value) is float)
    if type_ in (int, float) and is_number and 0 <= value <= MAX_NUMBER:
        return type_(value)
    raise ValueError(f"{name} is not a {type_.__name__} that can be")


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(_plain(str, value, name) for value in _list(document, name))


def _numbers(document: Mapping[str, Any], name: str) -> dict[str, int]:
    numbers = _part(document, name)
    return {_plain(str, key, name): _plain(int, value, name) for key, value in numbers.items()}


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _mapping(document.get(name, {}), name)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")  # noqa: TRY004 - of outside input
    return value


def _list(document: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = document.get(name, ())
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} is not a JSON array")  # noqa: TRY004 - of outside input
    return value
