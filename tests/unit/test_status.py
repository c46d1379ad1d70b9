"""A status in JSON: to and fro, between versions, and from somebody who means harm."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.diagnosis import Failure, FailureReason
from wgd.status import (
    LATENCY_BOUNDS_SECONDS,
    DeviceStatus,
    Handshakes,
    Latency,
    PeerStatus,
    as_json,
    from_json,
    json_parts,
)

NUMBERS = st.integers(0, 2**64 - 1)
TEXTS = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8)
FAILURES = st.lists(
    st.builds(Failure, st.sampled_from(FailureReason), NUMBERS, NUMBERS, TEXTS), max_size=3
).map(tuple)
PEERS = st.builds(
    PeerStatus,
    public_key=TEXTS,
    endpoint=TEXTS,
    configured_endpoint=TEXTS,
    allowed_ips=st.lists(TEXTS, max_size=3).map(tuple),
    has_session=st.booleans(),
    has_preshared_key=st.booleans(),
    last_handshake_ns=NUMBERS,
    sent_packets=NUMBERS,
    failures=FAILURES,
)
LATENCIES = st.builds(
    Latency,
    st.lists(
        NUMBERS,
        min_size=len(LATENCY_BOUNDS_SECONDS) + 1,
        max_size=len(LATENCY_BOUNDS_SECONDS) + 1,
    ).map(tuple),
    st.floats(0, 1e9),
)
STATUSES = st.builds(
    DeviceStatus,
    interface=TEXTS,
    now_ns=NUMBERS,
    is_up=st.booleans(),
    offloads=st.lists(TEXTS, max_size=3).map(tuple),
    handshakes=st.builds(Handshakes, NUMBERS, NUMBERS, NUMBERS),
    latency=LATENCIES,
    drops=st.dictionaries(TEXTS, NUMBERS, max_size=3),
    queues=st.dictionaries(TEXTS, NUMBERS, max_size=3),
    queue_limits=st.dictionaries(TEXTS, NUMBERS, max_size=3),
    failures=FAILURES,
    peers=st.lists(PEERS, max_size=4).map(tuple),
)


@given(STATUSES)
def test_to_and_fro(status: DeviceStatus) -> None:
    assert from_json(json.loads(json.dumps(as_json(status)))) == status


@given(STATUSES)
def test_the_parts_are_the_same_on_one_line_of_ascii(status: DeviceStatus) -> None:
    text = "".join(json_parts(status))
    assert json.loads(text) == json.loads(json.dumps(as_json(status)))
    assert text.isascii()
    assert "\n" not in text


def test_as_json_names_every_field_of_every_part() -> None:
    document = as_json(DeviceStatus("wg0", peers=(PeerStatus("key"),)))
    assert list(document) == [each.name for each in dataclasses.fields(DeviceStatus)]
    assert list(document["peers"][0]) == [each.name for each in dataclasses.fields(PeerStatus)]


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_parts_of_any_number_of_peers(count: int) -> None:
    peers = tuple(PeerStatus(f"key{number}") for number in range(count))
    status = DeviceStatus("wg0", peers=peers)
    parts = list(json_parts(status))
    assert from_json(json.loads("".join(parts))) == status
    assert max(part.count("public_key") for part in parts) <= 256 + 1  # and the device's own


def test_peers_may_be_made_when_they_are_looked_at() -> None:
    class Late(Sequence[PeerStatus]):
        made = 0

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: Any) -> Any:
            assert isinstance(index, slice)
            numbers = range(1000)[index]
            self.made += len(numbers)
            return [PeerStatus(f"key{number}") for number in numbers]

    late = Late()
    parts = json_parts(DeviceStatus("wg0", peers=late))
    text = next(parts)
    assert late.made == 0
    text += next(parts)
    assert 0 < late.made < 1000
    assert len(from_json(json.loads(text + "".join(parts))).peers) == 1000


def test_every_name_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/uapi-extensions.md").read_text()
    for kind in (DeviceStatus, PeerStatus, Handshakes, Latency, Failure):
        for each in dataclasses.fields(kind):
            assert f"`{each.name}`" in text, f"docs/uapi-extensions.md has no {each.name}"


# -- other versions --------------------------------------------------------------------------------


def test_what_a_newer_one_has_to_say_is_ignored() -> None:
    document = as_json(DeviceStatus("wg0", peers=(PeerStatus("key"),)))
    document["shoe_size"] = [44]
    document["handshakes"]["shaken"] = 1
    document["peers"][0]["mood"] = {"good": True}
    document["failures"] = [
        {"reason": "asteroid", "count": 1, "last_ns": 2},
        {"reason": "no_route", "count": 1, "last_ns": 2, "witnesses": 7},
    ]
    expected = DeviceStatus(
        "wg0",
        failures=(Failure(FailureReason.NO_ROUTE, 1, 2),),
        peers=(PeerStatus("key"),),
    )
    assert from_json(document) == expected


def test_what_an_older_one_leaves_out_has_its_default() -> None:
    assert from_json({"interface": "wg0", "peers": [{"public_key": "key"}]}) == DeviceStatus(
        "wg0", peers=(PeerStatus("key"),)
    )


@pytest.mark.parametrize("counts", [[], [1], [1] * 100])
def test_a_histogram_of_other_buckets_is_left_out(counts: list[int]) -> None:
    document = {"interface": "wg0", "latency": {"counts": counts, "sum_seconds": 3.0}}
    assert from_json(document).latency == Latency()


# -- hostile documents -----------------------------------------------------------------------------


@pytest.mark.parametrize("document", [None, 1, "wg0", [], [{}], {}, {"interface": None}])
def test_what_is_no_status(document: Any) -> None:
    with pytest.raises(ValueError, match=r"interface|status"):
        from_json(document)


BUCKETS = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
BAD_VALUES: dict[str, list[Any]] = {
    "listen_port": ["1", -1, 1.5, True, None, 2**64, [1], float("nan")],
    "is_up": [1, "true", None],
    "version": [1, None, ["x"]],
    "peers": [{}, "abc", 1, None, [None], ["key"], [{}], [{"public_key": 1}]],
    "offloads": ["abc", [1], {"a": 1}],
    "drops": [[], {"a": "1"}, {"a": -1}, {"a": 1.0}],
    "handshakes": [[], None, {"initiated": "x"}],
    "latency": [
        *[3, {"counts": "1234"}, {"counts": [None]}],
        *[
            {"counts": BUCKETS, "sum_seconds": seconds}
            for seconds in ("1", -1.0, float("inf"), float("nan"), 10**400, None)
        ],
    ],
    "failures": [[1], {}, [{}], [{"reason": 1}], [{"reason": "no_route"}]],
}


@pytest.mark.parametrize(
    ("name", "bad"), [(name, bad) for name, values in BAD_VALUES.items() for bad in values]
)
def test_a_value_that_cannot_be_is_refused_and_not_shown(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^[a-z_ A-Z]+$"):
        from_json({"interface": "wg0", name: bad})


def test_whole_seconds_are_seconds() -> None:
    document = {"interface": "wg0", "latency": {"counts": BUCKETS, "sum_seconds": 3}}
    assert from_json(document).latency.sum_seconds == 3.0


def test_what_could_move_a_cursor_is_escaped() -> None:
    document = {
        "interface": "wg0\x1b[2J",
        "drops": {"a\nb": 1},
        "offloads": ["\u202e"],
        "peers": [{"public_key": "key", "failures": []}],
        "failures": [{"reason": "no_route", "count": 1, "last_ns": 0, "detail": "\ud800\x07"}],
    }
    status = from_json(document)
    texts = [status.interface, *status.drops, *status.offloads, status.failures[0].detail]
    assert all(text.isprintable() for text in texts)
    assert status.interface == "wg0\\x1b[2J"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *["interface", "peers", "failures", "reason", "count", "last_ns", "latency"],
                    *["counts", "drops", "public_key", "handshakes", "allowed_ips", "x"],
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_a_status_or_a_value_error(document: Any) -> None:
    try:
        status = from_json(document)
    except ValueError:
        return
    assert from_json(as_json(status)) == status
