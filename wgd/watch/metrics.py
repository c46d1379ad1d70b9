"""A device's status as Prometheus metrics: the one place where their names are.

Names and units are by Prometheus' conventions, and every series says its `interface`. A peer is
told by its `public_key` alone: its endpoint changes with every roaming, and a label that changes
makes a new series each time. What a person knows a peer by is in `wgd_peer_info`, for joins.

`prometheus_client` takes 0.1 s to load: import this module where it is needed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from wgd.constants import SECOND_NS
from wgd.status import LATENCY_BOUNDS_SECONDS, DeviceStatus, PeerStatus

OFFLOADS: Final = ("tun_gro", "tun_tso", "tun_uso", "udp_gro", "udp_gso")
"""Shown as 0 when they are not in use, so that an alert can be made of it."""

MAX_ALLOWED_IPS: Final = 4
"""Of a peer in `wgd_peer_info`; the rest becomes an ellipsis."""

_DEVICE: Final = ("interface",)

_process: Final = ProcessCollector(registry=None)


class StatusCollector(Collector):
    """Turns one status into metric families, `interface` first, then peers, then the process."""

    def __init__(self, status: DeviceStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield the families, each once."""
        interface = _text(self._status.interface)
        yield from _device(self._status, interface)
        yield from _handshakes(self._status, interface)
        yield from _trouble(self._status, interface)
        yield from _peers(self._status.peers, interface)
        yield from _process.collect()


def render(status: DeviceStatus, accept: str) -> tuple[bytes, str]:
    """Return the metrics and their content type: what the HTTP header `accept` prefers of the
    Prometheus text format and OpenMetrics.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except (ValueError, TypeError):  # it asks for a version that is no version
        encode, content_type = choose_encoder("")
    return encode(StatusCollector(status)), content_type


# -- the interface -----------------------------------------------------------------------------


def _device(status: DeviceStatus, interface: str) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "wgd",
        "The daemon: its version, its data plane and the public key of its interface.",
        {
            "interface": interface,
            "version": status.version,
            "dataplane": status.dataplane,
            "public_key": status.public_key,
        },
    )
    device = [interface]
    for name, text, value in (
        ("wgd_interface_up", "Whether the interface is up.", status.is_up),
        ("wgd_interface_listening", "Whether the UDP port is bound.", status.is_listening),
        ("wgd_interface_mtu_bytes", "MTU of the interface.", status.mtu),
        ("wgd_under_load", "Whether handshakes need a cookie now.", status.is_under_load),
        ("wgd_workers", "Threads of the data plane in each direction.", status.workers),
        ("wgd_peers", "Peers that are configured.", len(status.peers)),
    ):
        yield _gauge(name, text, _DEVICE, [(device, value)])
    offloads = sorted({*OFFLOADS, *status.offloads})
    yield _gauge(
        "wgd_offload_in_use",
        "Whether the kernel joins and cuts packets in this way for the data plane.",
        (*_DEVICE, "offload"),
        [([interface, name], name in status.offloads) for name in offloads],
    )
    queue = (*_DEVICE, "queue")
    yield _gauge(
        "wgd_queue_length",
        "What waits now, by queue.",
        queue,
        [([interface, name], value) for name, value in status.queues.items()],
    )
    yield _gauge(
        "wgd_queue_limit",
        "How much may wait, by queue.",
        queue,
        [([interface, name], value) for name, value in status.queue_limits.items()],
    )


def _handshakes(status: DeviceStatus, interface: str) -> Iterator[Metric]:
    counts = status.handshakes
    yield _counter(
        "wgd_handshakes",
        "Handshake messages by what became of them: initiations of ours that were answered or "
        "unanswered, messages of others that were accepted or refused.",
        (*_DEVICE, "result"),
        [
            ([interface, "answered"], counts.answered),
            ([interface, "unanswered"], counts.unanswered),
            ([interface, "accepted"], counts.accepted),
            ([interface, "refused"], counts.refused),
        ],
    )
    device = [interface]
    for name, text, value in (
        ("wgd_handshake_initiations_sent", "Handshake initiations sent.", counts.initiated),
        ("wgd_handshakes_given_up", "Attempts that ended without a session.", counts.given_up),
        ("wgd_cookie_replies_sent", "Cookie replies sent, under load.", counts.cookies_sent),
        ("wgd_cookie_replies_received", "Cookie replies received.", counts.cookies_received),
    ):
        yield _counter(name, text, _DEVICE, [(device, value)])

    latency = HistogramMetricFamily(
        "wgd_handshake_duration_seconds",
        "Time from the first initiation of an attempt to its answer.",
        labels=_DEVICE,
    )
    bounds = [*map(floatToGoString, LATENCY_BOUNDS_SECONDS), "+Inf"]
    counted = accumulate(map(float, status.latency.counts))
    latency.add_metric(
        device,
        list(zip(bounds, counted, strict=False)),
        status.latency.sum_seconds,
    )
    yield latency


def _trouble(status: DeviceStatus, interface: str) -> Iterator[Metric]:
    reason = (*_DEVICE, "reason")
    yield _counter(
        "wgd_dropped_packets",
        "Packets and datagrams that were dropped, by reason.",
        reason,
        [([interface, name], value) for name, value in status.drops.items()],
    )
    yield _counter(
        "wgd_failures",
        "What failed and concerns no peer, by reason; a reason is listed once it has happened.",
        reason,
        [([interface, each.reason.value], each.count) for each in status.failures],
    )


# -- peers -------------------------------------------------------------------------------------


def _peers(peers: Sequence[PeerStatus], interface: str) -> Iterator[Metric]:
    yield _of_peers(
        GaugeMetricFamily("wgd_peer_info", "A peer: what it may send and be sent."),
        lambda: (
            ({"interface": interface, "public_key": peer.public_key, "allowed_ips": ips}, 1)
            for peer in peers
            for ips in (_allowed_ips(peer),)
        ),
    )
    for name, text, figure in _PEER_COUNTERS:
        yield _of_peers(CounterMetricFamily(name, text), _each(peers, interface, figure))
    for name, text, figure in _PEER_GAUGES:
        yield _of_peers(GaugeMetricFamily(name, text), _each(peers, interface, figure))
    yield _of_peers(
        CounterMetricFamily(
            "wgd_peer_failures",
            "What failed with the peer, by reason; a reason is listed once it has happened.",
        ),
        lambda: (
            ({"interface": interface, "public_key": peer.public_key, "reason": reason}, count)
            for peer in peers
            for reason, count in ((each.reason.value, each.count) for each in peer.failures)
        ),
    )


_Figure = Callable[[PeerStatus], float]
_Labelled = Iterator[tuple[dict[str, str], float]]

_PEER_COUNTERS: Final[tuple[tuple[str, str, _Figure], ...]] = (
    (
        "wgd_peer_received_bytes",
        "Bytes of UDP payload received from the peer: handshakes, keepalives and data.",
        lambda peer: peer.received_bytes,
    ),
    (
        "wgd_peer_sent_bytes",
        "Bytes of UDP payload sent to the peer: handshakes, keepalives and data.",
        lambda peer: peer.sent_bytes,
    ),
    (
        "wgd_peer_received_packets",
        "Datagrams received from the peer.",
        lambda peer: peer.received_packets,
    ),
    ("wgd_peer_sent_packets", "Datagrams sent to the peer.", lambda peer: peer.sent_packets),
)

_PEER_GAUGES: Final[tuple[tuple[str, str, _Figure], ...]] = (
    (
        "wgd_peer_last_handshake_timestamp_seconds",
        "Unix time of the last handshake with the peer, 0 for never.",
        lambda peer: peer.last_handshake_ns / SECOND_NS,
    ),
    (
        "wgd_peer_session",
        "Whether packets can go to the peer now without a handshake.",
        lambda peer: peer.has_session,
    ),
    (
        "wgd_peer_unanswered_initiations",
        "Handshake initiations in a row that the peer has not answered.",
        lambda peer: peer.unanswered_initiations,
    ),
)


def _each(peers: Sequence[PeerStatus], interface: str, figure: _Figure) -> Callable[[], _Labelled]:
    return lambda: (
        ({"interface": interface, "public_key": peer.public_key}, figure(peer)) for peer in peers
    )


class _Samples(list[Sample]):
    """Samples that are made as they are written, and gone after it.

    Tens of thousands kept at once would have Python's garbage collector look at every object of the
    daemon, which stops all threads.
    """

    def __init__(self, name: str, make: Callable[[], _Labelled]) -> None:
        super().__init__()
        self._name = name
        self._make = make

    def __iter__(self) -> Iterator[Sample]:
        return (Sample(self._name, labels, value) for labels, value in self._make())


def _of_peers(family: Metric, make: Callable[[], _Labelled]) -> Metric:
    """Return the family with a sample for each that `make` yields."""
    suffix = "_total" if family.type == "counter" else ""
    family.samples = _Samples(f"{family.name}{suffix}", make)
    return family


def _allowed_ips(peer: PeerStatus) -> str:
    shown = peer.allowed_ips[:MAX_ALLOWED_IPS]
    more = ["…"] if len(peer.allowed_ips) > MAX_ALLOWED_IPS else []
    return ",".join([*shown, *more])


# -- families ----------------------------------------------------------------------------------


def _gauge(
    name: str, text: str, labels: tuple[str, ...], samples: Iterable[tuple[list[str], float]]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(
    name: str, text: str, labels: tuple[str, ...], samples: Iterable[tuple[list[str], float]]
) -> Metric:
    """Return a counter; in the text it is called `name`_total."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _text(name: str) -> str:
    """Return an interface's name as UTF-8 can write it: Linux allows any byte."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
