"""A status as metrics, read back by the parser of prometheus_client."""

import dataclasses

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.watch.statuses import NOW_NS, device, key, peer
from wgd.diagnosis import Failure, FailureReason
from wgd.status import LATENCY_BOUNDS_SECONDS, DeviceStatus
from wgd.watch.metrics import MAX_ALLOWED_IPS, render

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def series(status: DeviceStatus, accept: str = "") -> Series:
    body, content_type = render(status, accept)
    is_open = content_type.startswith("application/openmetrics-text")
    parse = (
        openmetrics.text_string_to_metric_families if is_open else text_string_to_metric_families
    )
    samples = [sample for family in parse(body.decode()) for sample in family.samples]
    found = {(each.name, frozenset(each.labels.items())): each.value for each in samples}
    assert len(found) == len(samples), "a series is there twice"
    return found


def value(found: Series, name: str, **labels: str) -> float:
    return found[name, frozenset({"interface": "wg7", **labels}.items())]


def test_each_figure_of_a_peer_is_a_series_with_its_key() -> None:
    found = series(
        device(peer(1), peer(2, unanswered_initiations=3, has_session=False, last_handshake_ns=0))
    )
    first, second = {"public_key": key(1)}, {"public_key": key(2)}
    assert value(found, "wgd_peer_received_bytes_total", **first) == 1001
    assert value(found, "wgd_peer_sent_bytes_total", **second) == 2002
    assert value(found, "wgd_peer_received_packets_total", **second) == 12
    assert value(found, "wgd_peer_sent_packets_total", **first) == 21
    handshake = value(found, "wgd_peer_last_handshake_timestamp_seconds", **first)
    assert handshake == NOW_NS / 1e9 - 40
    assert value(found, "wgd_peer_last_handshake_timestamp_seconds", **second) == 0
    assert value(found, "wgd_peer_session", **first) == 1
    assert value(found, "wgd_peer_session", **second) == 0
    assert value(found, "wgd_peer_unanswered_initiations", **second) == 3
    assert value(found, "wgd_peers") == 2


def test_roaming_makes_no_new_series() -> None:
    before = series(device(peer(1)))
    after = series(device(peer(1, endpoint="[2001:db8::9]:4")))
    assert before.keys() == after.keys()


def test_what_happened_is_counted_by_result_and_reason() -> None:
    failure = Failure(FailureReason.NOT_ANSWERED, 8, NOW_NS, "192.0.2.9:1")
    found = series(device(peer(1, failures=(failure,))))
    results = {
        result: value(found, "wgd_handshakes_total", result=result)
        for result in ("answered", "unanswered", "accepted", "refused")
    }
    assert results == {"answered": 6, "unanswered": 2, "accepted": 4, "refused": 3}
    assert value(found, "wgd_handshake_initiations_sent_total") == 9
    assert value(found, "wgd_dropped_packets_total", reason="wrong_mac1") == 7
    assert value(found, "wgd_failures_total", reason="unknown_peer") == 5
    labels = {"public_key": key(1), "reason": "not_answered"}
    assert value(found, "wgd_peer_failures_total", **labels) == 8


def test_the_latency_is_a_cumulative_histogram() -> None:
    found = series(device())
    buckets = [
        value(found, "wgd_handshake_duration_seconds_bucket", le=str(bound))
        for bound in LATENCY_BOUNDS_SECONDS
    ]
    assert buckets[0] == 5
    assert buckets[2] == 5
    assert buckets[3] == buckets[-1] == 7
    assert value(found, "wgd_handshake_duration_seconds_bucket", le="+Inf") == 8
    assert value(found, "wgd_handshake_duration_seconds_count") == 8
    assert value(found, "wgd_handshake_duration_seconds_sum") == 95.25


def test_an_offload_that_is_not_in_use_is_a_zero() -> None:
    found = series(device(offloads=("udp_gso", "one_of_later")))
    assert value(found, "wgd_offload_in_use", offload="udp_gso") == 1
    assert value(found, "wgd_offload_in_use", offload="tun_tso") == 0
    assert value(found, "wgd_offload_in_use", offload="one_of_later") == 1


def test_the_process_is_there() -> None:
    found = series(device())
    assert found["process_cpu_seconds_total", frozenset()] > 0
    assert found["process_resident_memory_bytes", frozenset()] > 1e6


def test_a_peer_of_many_allowed_ips_has_a_short_label() -> None:
    many = tuple(f"10.0.{n}.0/24" for n in range(200))
    label = ",".join([*many[:MAX_ALLOWED_IPS], "…"])
    found = series(device(peer(1, allowed_ips=many), peer(2, allowed_ips=many[:1])))
    assert value(found, "wgd_peer_info", public_key=key(1), allowed_ips=label) == 1
    assert value(found, "wgd_peer_info", public_key=key(2), allowed_ips=many[0]) == 1


@pytest.mark.parametrize("accept", [OPENMETRICS, "text/plain", "*/*", ""])
def test_both_formats_say_the_same(accept: str) -> None:
    status = device(peer(1))
    found = series(status, accept)
    theirs = {name: value for name, value in found.items() if not name[0].startswith("process_")}
    plain = {n: v for n, v in series(status).items() if not n[0].startswith("process_")}
    assert theirs == plain
    assert render(status, accept)[1].startswith(
        "application/openmetrics-text" if accept == OPENMETRICS else "text/plain"
    )


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=x.y", ";;,,=", "text/plain; version=1.0.0é"]
)
def test_a_strange_wish_gets_the_usual_text(accept: str) -> None:
    assert b"wgd_peers" in render(device(), accept)[0]


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is() -> None:
    found = series(dataclasses.replace(device(), interface="wg\udcff"))
    assert found["wgd_peers", frozenset({("interface", "wg\ufffd")})] == 0
