"""The floods of `benchmarks/floods` are what they are called, and its table says what was kept."""

import os
from dataclasses import replace

import pytest
from flood_kinds import FLOODS, Target
from flood_report import Round, markdown, summary

from wgd.noise.cookie import CookieChecker, HandshakeKeys
from wgd.noise.handshake import StaticIdentity, identify_initiator
from wgd.noise.messages import Initiation, MessageType, message_type


@pytest.fixture
def ours() -> StaticIdentity:
    return StaticIdentity(os.urandom(32))


@pytest.fixture
def target(ours: StaticIdentity) -> Target:
    return Target(ours.public_key, 0x01020304, StaticIdentity(os.urandom(32)))


@pytest.mark.parametrize(
    ("name", "kind", "is_right"),
    [
        ("mac1", MessageType.INITIATION, False),
        ("keys", MessageType.INITIATION, True),
        ("spoofed", MessageType.INITIATION, True),
        ("replays", MessageType.INITIATION, True),
    ],
)
def test_initiations(
    ours: StaticIdentity, target: Target, name: str, kind: MessageType, is_right: bool
) -> None:
    datagram = next(FLOODS[name].make(target))
    assert message_type(datagram) is kind
    assert CookieChecker(HandshakeKeys.of(ours.public_key)).check_mac1(datagram) == is_right


def test_recordings_are_of_a_peer(ours: StaticIdentity, target: Target) -> None:
    datagram = next(FLOODS["replays"].make(target))
    found = identify_initiator(ours, Initiation.parse(datagram))
    assert found.initiator == target.recorded.public_key


def test_others(target: Target) -> None:
    assert list(FLOODS["none"].make(target)) == []
    assert message_type(next(FLOODS["cookies"].make(target))) is MessageType.COOKIE_REPLY
    live = next(FLOODS["live"].make(target))
    assert live[:8] == b"\x04\0\0\0\x04\x03\x02\x01"
    assert len(live) == 128


def test_the_table_has_ratios_to_the_quiet_round_and_to_the_baseline() -> None:
    quiet = Round(1, "none", "wgd-native", mbit_per_second=200, join_seconds=0.1)
    flooded = replace(quiet, flood="keys", cpu_us_per_packet=1.5, mbit_per_second=180)
    late = replace(flooded, implementation="wireguard-go", cpu_us_per_packet=3, join_seconds=None)
    failed = Round(1, "mac1", "wgd-native", failure="no ping")
    lines = list(markdown([quiet, flooded, late, failed]))
    assert "| 1.50 | 0.50 |" in lines[3]
    assert "| 180 | 0.90 |" in lines[3]
    assert "| 180 | - |" in lines[4], "it has no quiet round"
    assert lines[4].endswith("| 1 of 1 not in 15 |")
    assert lines[5].count("failed") == 14


def test_a_round_is_told_in_one_line() -> None:
    found = Round(2, "keys", "wgd-native", arrived_per_second=40_000, cpu_us_per_packet=1.5)
    assert summary(found) == (
        "2 keys wgd-native: 40000 packets/s, 1.50 us each; ping 0.00 ms, p99 0.0 ms;"
        " TCP 0 Mbit/s; joined: no"
    )
    assert summary(replace(found, failure="no ping")) == "2 keys wgd-native: failed: no ping"
