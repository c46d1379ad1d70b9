"""What `NativeDataPlane` asks of the extension, and what it makes of the answers.

The extension is a fake that records its calls; the real one takes the conformance suite.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_native import use_extension
from wgd.addresses import Endpoint, Prefix, Source
from wgd.clock import VirtualClock
from wgd.dataplane.interface import (
    BecameActive,
    Counters,
    Fault,
    HandshakeMessage,
    KeypairConfirmed,
    Load,
    NeedsHandshake,
    OffloadOff,
    PeerId,
    QueueDepths,
    Stamps,
    TunClosed,
)
from wgd.dataplane.portable_state import Drops
from wgd.diagnosis import FailureReason
from wgd.noise.cookie import HandshakeKeys
from wgd.noise.keypair import Keypair
from wgd.tun.memory import MemoryTun

if TYPE_CHECKING:
    from wgd.dataplane.native import NativeDataPlane

A = PeerId(7)
NOW_NS = 5_000_000_123
PLAIN = Endpoint("192.0.2.1", 51820)
PINNED = Endpoint("fe80::1", 51820, 3, Source("fe80::2", 3))


class FakeEngine:
    """Records calls as (name, arguments, keywords) and answers with what `answers` has."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.calls.append((name, *arguments, *([keywords] if keywords else [])))
            return self.answers.get(name)

        return call


class FakeSocket:
    is_ipv6 = True
    max_segments = 64

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number


class FakeTun(MemoryTun):
    queue_fds = (11, 12)
    has_packet_information = True
    virtio_header_size = 12
    needs_native = True
    segmentation: tuple[str, ...]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[[MemoryTun], "NativeDataPlane"]:
    """Makes a data plane on the fake extension."""
    use_extension(monkeypatch, FakeEngine)
    native = importlib.import_module("wgd.dataplane.native")
    clock = VirtualClock(boot_ns=NOW_NS)
    return lambda tun: native.NativeDataPlane(tun, clock)


@pytest.fixture
def dataplane(make: Callable[[MemoryTun], "NativeDataPlane"]) -> "NativeDataPlane":
    return make(MemoryTun())


def fake(dataplane: "NativeDataPlane") -> FakeEngine:
    engine = dataplane._engine
    assert isinstance(engine, FakeEngine)
    return engine


def keypair() -> Keypair:
    return Keypair(
        local_index=1,
        remote_index=2,
        send_key=b"s" * 32,
        receive_key=b"r" * 32,
        is_initiator=True,
        created_ns=3,
    )


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda d: d.set_mtu(1420), ("set_mtu", 1420)),
        (lambda d: d.add_peer(A), ("add_peer", 7)),
        (lambda d: d.remove_peer(A), ("remove_peer", 7)),
        (lambda d: d.set_endpoint(A, PINNED), ("set_endpoint", 7, PINNED)),
        (lambda d: d.clear_source(A), ("clear_source", 7)),
        (
            lambda d: d.add_allowed_ip(A, Prefix(b"\n\0\0\0", 8)),
            ("add_allowed_ip", 7, b"\n\0\0\0", 8),
        ),
        (
            lambda d: d.remove_allowed_ip(A, Prefix(bytes(16), 0)),
            ("remove_allowed_ip", 7, bytes(16), 0),
        ),
        (
            lambda d: d.install_keypair(A, keypair()),
            ("install_keypair", 7, 1, 2, b"s" * 32, b"r" * 32, True, 3),
        ),
        (lambda d: d.expire_keypairs(A), ("expire_keypairs", 7)),
        (lambda d: d.drop_keypairs(A), ("drop_keypairs", 7)),
        (lambda d: d.send_keepalive(A), ("send_keepalive", 7, NOW_NS)),
        (lambda d: d.send_staged(A), ("send_staged", 7, NOW_NS)),
        (lambda d: d.drop_staged(A), ("drop_staged", 7)),
        (lambda d: d.has_session(A), ("has_session", 7, NOW_NS)),
        (lambda d: d.staged_packets(A), ("staged_packets", 7)),
        (lambda d: d.disarm(A), ("disarm", 7)),
        (lambda d: d.clear_data_sent_unanswered(A), ("clear_data_sent_unanswered", 7)),
        (lambda d: d.clear_stamps(A), ("clear_stamps", 7)),
        (lambda d: d.set_handshake_keys(None), ("set_handshake_keys", None, None)),
        (
            lambda d: d.set_handshake_keys(HandshakeKeys(b"m", b"c")),
            ("set_handshake_keys", b"m", b"c"),
        ),
        (lambda d: d.send_to_peer(A, b"d"), ("send_to_peer", 7, b"d", NOW_NS)),
        (lambda d: d.note_received(A, 148, PINNED), ("note_received", 7, 148, PINNED, NOW_NS)),
        (lambda d: d.receive_from_tun(), ("step_tun", NOW_NS)),
        (lambda d: d.event_fd(), ("event_fd",)),
        (lambda d: d.stop(), ("stop",)),
    ],
)
def test_calls_go_down_with_numbers_tuples_and_the_time(
    dataplane: "NativeDataPlane", call: Callable[[Any], Any], expected: tuple[Any, ...]
) -> None:
    fake(dataplane).answers[expected[0]] = answer = object()
    returned = call(dataplane)
    assert fake(dataplane).calls == [expected]
    assert returned in (None, answer)


def test_answers_come_back_as_the_types_of_the_interface(dataplane: "NativeDataPlane") -> None:
    answers = fake(dataplane).answers
    answers["endpoint"] = None
    assert dataplane.endpoint(A) is None
    answers["endpoint"] = ("192.0.2.1", 51820, 0, None)
    assert dataplane.endpoint(A) == PLAIN
    answers["endpoint"] = ("fe80::1", 51820, 3, ("fe80::2", 3))
    found = dataplane.endpoint(A)
    assert found == PINNED
    assert found is not None and isinstance(found.source, Source)
    answers["stamps"] = (1, 2, 3, 4)
    assert dataplane.stamps(A) == Stamps(1, 2, 3, 4)
    answers["counters"] = (5, 6, 7, 8)
    assert dataplane.counters(A) == Counters(
        sent_bytes=5, received_bytes=6, sent_packets=7, received_packets=8
    )
    answers["faults"] = [("send_failed", 3, NOW_NS, 101), ("packet_replayed", 1, 2, 0)]
    assert dataplane.faults(A) == (
        Fault(FailureReason.SEND_FAILED, count=3, last_ns=NOW_NS, errno=101),
        Fault(FailureReason.PACKET_REPLAYED, count=1, last_ns=2, errno=0),
    )
    answers["drops"] = {"no_route": 9}
    assert dataplane.drops == Drops(no_route=9)
    assert dataplane.drop_counts() == {"no_route": 9}
    answers["queue_depths"] = (2, 3)
    assert dataplane.queue_depths() == QueueDepths(handshakes=2, staged=3)
    answers["take_handshakes"] = [(b"m", ("192.0.2.1", 51820, 0, None))]
    assert dataplane.take_handshakes(16) == [HandshakeMessage(b"m", PLAIN)]
    answers["load"] = (True, 7)
    assert dataplane.load() == Load(is_under_load=True, cookies_sent=7)


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        (("tun_tso", "tun_uso"), ("tun_gro", "tun_tso", "tun_uso", "udp_gso")),
        (("tun_tso",), ("tun_gro", "tun_tso", "udp_gso")),
        ((), ("tun_gro", "udp_gso")),
        (None, ("tun_gro", "udp_gso")),
    ],
)
def test_an_offload_is_in_use_if_the_tun_was_made_with_it_and_it_has_not_failed(
    make: Callable[[MemoryTun], "NativeDataPlane"],
    segmentation: tuple[str, ...] | None,
    expected: tuple[str, ...],
) -> None:
    tun = FakeTun()
    if segmentation is not None:
        tun.segmentation = segmentation
    dataplane = make(tun)
    fake(dataplane).answers["offloads"] = ["tun_gro", "tun_tso", "tun_uso", "udp_gso"]
    assert dataplane.offloads() == expected
    fake(dataplane).answers["offloads"] = ["tun_gro"]
    assert dataplane.offloads() == ("tun_gro",)


def test_events_come_up_in_order_as_what_they_are(dataplane: "NativeDataPlane") -> None:
    fake(dataplane).answers["drain_events"] = [
        ("needs_handshake", 7),
        ("became_active", 8),
        ("keypair_confirmed", 7, 1001, (5, 6)),
        ("offload_off", "udp_gso", "EIO"),
        ("tun_closed", "gone"),
    ]
    assert dataplane.drain_events() == [
        NeedsHandshake(A),
        BecameActive(PeerId(8)),
        KeypairConfirmed(A, 1001, (5, 6)),
        OffloadOff("udp_gso", "EIO"),
        TunClosed("gone"),
    ]
    fake(dataplane).answers["drain_events"] = [("unheard_of", 7)]
    with pytest.raises(ValueError, match="unheard_of"):
        dataplane.drain_events()


def test_without_threads_it_works_on_the_objects(dataplane: "NativeDataPlane") -> None:
    first, second = FakeSocket(4), FakeSocket(5)
    dataplane.attach_sockets([first, second])  # type: ignore[list-item] # enough of them
    dataplane.receive_from_socket(second)  # type: ignore[arg-type]
    assert fake(dataplane).calls == [
        ("attach_objects", dataplane._tun, (first, second)),
        ("step_socket", 1, NOW_NS),
    ]


def test_with_threads_it_works_on_descriptors(
    make: Callable[[MemoryTun], "NativeDataPlane"],
) -> None:
    dataplane = make(FakeTun())
    dataplane.start(object())
    dataplane.attach_sockets([FakeSocket(4), FakeSocket(5)])  # type: ignore[list-item]
    dataplane.attach_sockets([])
    assert fake(dataplane).calls == [
        ("start", (11, 12), {"virtio_header_size": 12, "has_packet_information": True}),
        ("attach_sockets", [(4, True, 64), (5, True, 64)]),
        ("attach_sockets", []),
    ]


def test_a_tun_without_descriptors_cannot_be_started_on(dataplane: "NativeDataPlane") -> None:
    with pytest.raises(TypeError, match="MemoryTun"):
        dataplane.start(object())
    assert fake(dataplane).calls == []
