"""Every rule on constructed facts: what it says, and when it says nothing."""

import errno
from dataclasses import replace
from typing import Any

import pytest

from tests.doctor.clinic import (
    NOW,
    OTHER_KEY,
    OWN_KEY,
    PEER_KEY,
    SECOND,
    failed,
    healthy,
    healthy_device,
    healthy_peer,
    silent_peer,
    with_peer,
)
from wgd.ctl.doctor.catalog import CATALOG, Severity
from wgd.ctl.doctor.facts import (
    EndpointPath,
    EndpointProbe,
    Facts,
    FilePeer,
    FirewallRule,
    Link,
    MtuProbe,
    NameAnswer,
    Route,
    Source,
    System,
)
from wgd.ctl.doctor.rules import examine
from wgd.diagnosis import Failure, FailureReason

LINK = Link(7, "wg0", 1420, True, "tun", ("10.0.0.1/24",))
ETH0 = Route("eth0", 1500)
TUNNEL = Route("wg0", 1420)
REFUSED = "refused by its firewall"
NAME = "vpn.example.org:51820"


def silent(**changes: Any) -> Facts:
    """A peer that does not answer, and what a probe of its endpoint brought."""
    return replace(with_peer(**silent_peer()), **changes)


def probed(error: int, *, answers_ping: bool | None = None) -> Facts:
    return silent(probes={PEER_KEY: EndpointProbe(error, answers_ping)})


def named(answer: NameAnswer, **changes: Any) -> Facts:
    facts = with_peer(configured_endpoint=NAME, **changes)
    return replace(facts, names={PEER_KEY: answer})


def two_peers(*allowed_ips: str) -> Facts:
    peers = (
        healthy_peer(allowed_ips=(allowed_ips[0],)),
        healthy_peer(public_key=OTHER_KEY, allowed_ips=allowed_ips[1:]),
    )
    return healthy(healthy_device(peers=peers))


def device_failed(reason: FailureReason, *values: Any) -> Facts:
    return healthy(healthy_device(failures=(failed(reason, *values),)))


def path(marked: Route, unmarked: Route | None = None, **changes: Any) -> Facts:
    return healthy(paths={PEER_KEY: EndpointPath(marked, unmarked or marked)}, **changes)


def filtered(strict: int, *, marks: bool, fwmark: int = 51820) -> Facts:
    """A full tunnel: marked datagrams leave through eth0, everything else through the tunnel."""
    return path(
        ETH0, TUNNEL, device=healthy_device(fwmark=fwmark), system=System({"eth0": strict}, marks)
    )


def sizes(*probes: MtuProbe) -> Facts:
    return healthy(mtus={PEER_KEY: probes})


FILE: dict[str, Any] = {"file_name": "wg0.conf"}
NEVER = {"endpoint": "", "configured_endpoint": "", "last_handshake_ns": 0}
UNTAKEN = {
    "has_session": False,
    "last_handshake_ns": 0,
    "last_received_ns": NOW - 8 * SECOND,
    "received_bytes": 148,
    "received_packets": 1,
    "sent_bytes": 92,
    "sent_packets": 1,
}
DAY_NS = 86_400 * SECOND
ASLEEP = {
    "has_session": False,
    "last_handshake_ns": NOW - DAY_NS,
    "last_received_ns": NOW - DAY_NS,
    "last_sent_ns": NOW - DAY_NS + 90 * SECOND,
    "unanswered_initiations": 19,
    "failures": (failed(FailureReason.NOT_ANSWERED, 19, age=86_000),),
}
REPLAYED = (failed(FailureReason.REPLAYED_TIMESTAMP, 4),)

SICK: list[tuple[str, Facts, str]] = [
    ("no-daemon", Facts("wg0", NOW, link=LINK, refusal=REFUSED), REFUSED),
    ("interface-down", healthy(link=replace(LINK, is_up=False)), "wg0"),
    ("interface-down", healthy(healthy_device(is_up=False), link=None), "wg0"),
    ("not-listening", healthy(healthy_device(is_listening=False)), "51820"),
    ("no-private-key", healthy(healthy_device(public_key="")), "wg0"),
    ("no-address", healthy(link=replace(LINK, addresses=("fe80::1/64",))), "wg0"),
    ("no-peers", healthy(healthy_device(peers=())), "wg0"),
    ("elsewhere", healthy(link=None, link_is_elsewhere=True), "wg0"),
    ("under-load", healthy(healthy_device(is_under_load=True)), "wg0"),
    ("clock-wrong", with_peer(last_handshake_ns=NOW + 60 * SECOND), "2023-11-14 22:14:20"),
    ("clock-wrong", healthy(healthy_device(started_ns=NOW + 60 * SECOND)), "22:14:20"),
    ("clock-wrong", healthy(system=System(software_made_ns=NOW + 60 * SECOND)), "installed"),
    ("no-allowed-ips", with_peer(allowed_ips=()), "cGVl…lciE"),
    (
        "prefix-twice",
        healthy(
            **FILE,
            file_peers=(
                FilePeer(PEER_KEY, ("10.0.0.0/24", "10.1.0.0/24")),
                FilePeer(OTHER_KEY, ("10.0.0.0/24",)),
            ),
        ),
        "10.0.0.0/24",
    ),
    ("prefix-nested", two_peers("10.0.0.0/8", "10.0.0.2/32"), "10.0.0.2/32"),
    ("prefix-nested", two_peers("fd00:0:0:7::/64", "fd00::/16"), "fd00:0:0:7::/64"),
    ("own-key-as-peer", healthy(**FILE, file_peers=(FilePeer(OWN_KEY, ()),)), "wg0.conf"),
    (
        "own-key-as-peer",
        healthy(
            healthy_device(peers=(), failures=(failed(FailureReason.OWN_KEY_AS_PEER, 1),)),
        ),
        "own public key",
    ),
    (
        "shared-key",
        healthy(seen_endpoints={PEER_KEY: ("192.0.2.2:1", "192.0.2.3:1", "192.0.2.2:1")}),
        "192.0.2.3:1",
    ),
    ("weak-key", with_peer(failures=(failed(FailureReason.WEAK_KEY),)), "cGVl"),
    ("never-called", with_peer(**NEVER), "cGVl"),
    ("no-endpoint", with_peer(**NEVER, staged_packets=2), "cGVl"),
    ("no-endpoint", with_peer(**NEVER, failures=(failed(FailureReason.NO_ENDPOINT),)), "cGVl"),
    ("name-not-found", named(NameAnswer(error="Name or service not known")), "not known"),
    (
        "name-not-found",
        with_peer(
            configured_endpoint=NAME,
            last_handshake_ns=0,
            failures=(failed(FailureReason.HOST_NOT_FOUND, 2, "no such name"),),
        ),
        "no such name",
    ),
    ("name-moved", named(NameAnswer(("192.0.2.9",))), "192.0.2.9"),
    ("no-route-to-endpoint", path(Route(error=errno.ENETUNREACH)), "Network is unreachable"),
    ("route-loop", path(TUNNEL), "192.0.2.2"),
    ("own-firewall", probed(errno.EPERM), "192.0.2.2"),
    (
        "own-firewall",
        with_peer(
            **silent_peer(failed(FailureReason.SEND_FAILED, 3, "EPERM to 192.0.2.2:51820")),
        ),
        "192.0.2.2",
    ),
    ("firewall-drops", healthy(firewall=(FirewallRule("input", "drop in x", True),)), "drop in x"),
    (
        "firewall-may-drop",
        silent(firewall=(FirewallRule("output", "drop in x", False, PEER_KEY),)),
        "may drop",
    ),
    (
        "send-failed",
        with_peer(**silent_peer(failed(FailureReason.SEND_FAILED, 3, "ENOBUFS to 192.0.2.2:1"))),
        "ENOBUFS",
    ),
    ("host-unreachable", probed(errno.EHOSTUNREACH), "No route to host"),
    ("port-closed", probed(errno.ECONNREFUSED), "51820"),
    ("endpoint-silent", probed(0, answers_ping=True), "answers a ping"),
    ("endpoint-silent", probed(0, answers_ping=False), "does not answer a ping"),
    ("endpoint-silent", silent(), "3 handshakes were sent"),
    (
        "endpoint-silent",
        replace(
            with_peer(has_session=False, last_handshake_ns=0, last_received_ns=0),
            source=Source.GET,
        ),
        "some handshakes were sent",
    ),
    (
        "unknown-peer",
        device_failed(FailureReason.UNKNOWN_PEER, 2, f"{OTHER_KEY} from 192.0.2.7:5"),
        OTHER_KEY,
    ),
    ("wrong-public-key", device_failed(FailureReason.WRONG_MAC1, 9), "9 times"),
    (
        "wrong-public-key",
        healthy(healthy_device(failures=(Failure(FailureReason.WRONG_MAC1, 9, 0),))),
        "since the daemon's start",
    ),
    (
        "preshared-keys-differ",
        with_peer(**silent_peer(failed(FailureReason.RESPONSE_NOT_AUTHENTIC, 2))),
        "this one has none",
    ),
    ("answer-not-taken", with_peer(**UNTAKEN), "cGVl"),
    (
        "replayed-timestamp",
        with_peer(last_received_ns=NOW - 9 * SECOND, failures=REPLAYED),
        "4 times",
    ),
    (
        "forged",
        with_peer(
            has_session=False,
            last_handshake_ns=0,
            failures=(failed(FailureReason.INITIATION_NOT_AUTHENTIC),),
        ),
        "forged",
    ),
    (
        "one-way",
        with_peer(received_bytes=184, received_packets=2, sent_packets=40),
        "184 received",
    ),
    (
        "one-way",
        with_peer(
            last_received_ns=NOW - 20 * SECOND,
            last_handshake_ns=NOW - 20 * SECOND,
            last_sent_ns=NOW - SECOND,
        ),
        "5000 bytes sent",
    ),
    (
        "source-not-allowed",
        with_peer(failures=(failed(FailureReason.NOT_AN_ALLOWED_IP, 5, age=60),)),
        "5 times, 60 seconds ago",
    ),
    ("destination-not-allowed", device_failed(FailureReason.NO_ROUTE, 500), "500 times"),
    ("missing-route", healthy(prefix_routes={"10.0.0.2/32": ETH0}), "to eth0"),
    (
        "missing-route",
        healthy(prefix_routes={"10.0.0.2/32": Route(error=errno.ENETUNREACH)}),
        "nowhere (Network is unreachable)",
    ),
    (
        "no-default-route",
        replace(with_peer(allowed_ips=("0.0.0.0/0",)), prefix_routes={"0.0.0.0/0": ETH0}),
        "to eth0",
    ),
    ("reverse-path-filter", filtered(1, marks=False), "eth0"),
    ("mtu-too-large", healthy(link=replace(LINK, mtu=1441)), "1500"),
    ("mtu-too-large", path(Route("eth0", 1400)), "1340"),
    ("mtu-black-hole", sizes(MtuProbe("192.0.2.2", 1480, 1380)), "1320"),
    ("mtu-black-hole", sizes(MtuProbe("10.0.0.2", 1420, 1280, True)), "1280"),
    ("receive-buffer-full", healthy(system=System(overflowed_datagrams=7)), "7 datagrams"),
    ("offload-off", healthy(healthy_device(offloads=("tun_tso", "udp_gro"))), "UDP GSO"),
]


@pytest.mark.parametrize(
    ("finding_id", "facts", "words"), SICK, ids=[f"{n}-{case[0]}" for n, case in enumerate(SICK)]
)
def test_each_finding_is_made_and_says_what_matters(
    finding_id: str, facts: Facts, words: str
) -> None:
    found = [finding for finding in examine(facts) if finding.id == finding_id]
    assert len(found) == 1
    text = " ".join([found[0].sentence, *found[0].advice])
    assert words in text
    assert "{" not in text
    assert text.isprintable()


def test_every_entry_of_the_catalog_is_made_by_a_rule() -> None:
    assert {case[0] for case in SICK} == set(CATALOG)


def test_a_healthy_tunnel_has_no_findings() -> None:
    assert examine(healthy()) == ()


# Facts that look like trouble and are none: the id that must not be found.
WELL: list[tuple[str, Facts]] = [
    ("interface-down", replace(healthy(), source=Source.GET, link=None)),
    ("not-listening", replace(healthy(healthy_device(is_listening=False)), source=Source.GET)),
    ("prefix-nested", two_peers("0.0.0.0/0", "10.0.0.2/32")),
    ("prefix-nested", two_peers("10.0.0.0/24", "10.0.1.0/24")),
    ("prefix-nested", two_peers("10.0.0.0/24", "fd00::/64")),
    ("shared-key", healthy(seen_endpoints={PEER_KEY: ("192.0.2.2:1", "192.0.2.3:1")})),
    ("never-called", with_peer(endpoint="", configured_endpoint="")),
    ("name-moved", named(NameAnswer(("192.0.2.9", "192.0.2.2")))),
    ("endpoint-silent", with_peer(unanswered_initiations=1)),
    # It has slept for a day: nobody has called it for as long.
    ("endpoint-silent", with_peer(**ASLEEP)),
    ("endpoint-silent", with_peer(**NEVER, failures=(failed(FailureReason.NO_ENDPOINT),))),
    ("endpoint-silent", path(Route(error=errno.ENETUNREACH))),
    (
        "endpoint-silent",
        with_peer(**silent_peer(failed(FailureReason.RESPONSE_NOT_AUTHENTIC))),
    ),
    ("port-closed", healthy(probes={PEER_KEY: EndpointProbe(errno.ECONNREFUSED)})),
    ("firewall-may-drop", healthy(firewall=(FirewallRule("input", "drop in x", False),))),
    (
        "unknown-peer",
        healthy(healthy_device(failures=(failed(FailureReason.UNKNOWN_PEER, age=9000),))),
    ),
    # There was a handshake after it.
    ("replayed-timestamp", with_peer(failures=(failed(FailureReason.REPLAYED_TIMESTAMP, age=30),))),
    # Since then the peer was heard, or it was a copy of the handshake.
    ("replayed-timestamp", with_peer(failures=(failed(FailureReason.REPLAYED_TIMESTAMP, age=9),))),
    (
        "replayed-timestamp",
        with_peer(
            last_handshake_ns=NOW - 2 * SECOND, last_received_ns=NOW - 2 * SECOND, failures=REPLAYED
        ),
    ),
    (
        "preshared-keys-differ",
        with_peer(failures=(failed(FailureReason.RESPONSE_NOT_AUTHENTIC, age=30),)),
    ),
    # A session that has just ended for want of traffic.
    (
        "answer-not-taken",
        with_peer(
            has_session=False,
            last_handshake_ns=NOW - 190 * SECOND,
            last_received_ns=NOW - 15 * SECOND,
        ),
    ),
    ("one-way", with_peer(last_received_ns=NOW - 12 * SECOND)),
    # Idle: nothing is expected.
    (
        "one-way",
        with_peer(
            last_received_ns=NOW - 100 * SECOND,
            last_handshake_ns=NOW - 100 * SECOND,
            last_sent_ns=NOW - 60 * SECOND,
        ),
    ),
    ("destination-not-allowed", device_failed(FailureReason.NO_ROUTE, 5)),
    ("missing-route", healthy(prefix_routes={"10.0.0.2/32": Route("lo", is_local=True)})),
    ("reverse-path-filter", filtered(2, marks=False)),
    ("reverse-path-filter", filtered(1, marks=True)),
    ("reverse-path-filter", filtered(1, marks=False, fwmark=0)),
    ("mtu-too-large", healthy(link=replace(LINK, mtu=1440))),
    ("mtu-black-hole", sizes(MtuProbe("192.0.2.2", 1480, 0))),
    ("mtu-black-hole", sizes(MtuProbe("192.0.2.2", 1480, 1480))),
    # Full size passes inside, and so all that is needed outside.
    (
        "mtu-black-hole",
        sizes(MtuProbe("192.0.2.2", 1480, 1000), MtuProbe("10.0.0.2", 1420, 1420, True)),
    ),
    ("offload-off", healthy(healthy_device(dataplane="portable", offloads=()))),
]


@pytest.mark.parametrize(
    ("finding_id", "facts"), WELL, ids=[f"{n}-{case[0]}" for n, case in enumerate(WELL)]
)
def test_what_is_no_trouble_is_not_reported(finding_id: str, facts: Facts) -> None:
    assert finding_id not in {finding.id for finding in examine(facts)}


def test_an_ipv6_endpoint_needs_eighty_bytes() -> None:
    def at(mtu: int) -> set[str]:
        facts = with_peer(endpoint="[2001:db8::2]:51820")
        return {f.id for f in examine(replace(facts, link=replace(LINK, mtu=mtu)))}

    assert "mtu-too-large" not in at(1420)
    assert "mtu-too-large" in at(1421)


def test_the_gravest_come_first() -> None:
    facts = healthy(
        healthy_device(peers=(), offloads=(), failures=(failed(FailureReason.WRONG_MAC1),))
    )
    severities = [finding.severity for finding in examine(facts)]
    assert severities == [Severity.PROBLEM, Severity.WARNING, Severity.NOTE]


def test_what_a_stranger_sends_cannot_steer_the_terminal() -> None:
    facts = device_failed(FailureReason.UNKNOWN_PEER, 1, "\x1b[2J\n from nowhere")
    (finding,) = examine(facts)
    assert finding.sentence.isprintable()


def test_ten_thousand_prefixes_are_compared_quickly() -> None:
    peers = tuple(
        healthy_peer(
            public_key=f"{n:043d}=",
            allowed_ips=tuple(f"10.{n}.{m // 4}.{m % 4 * 64}/26" for m in range(100)),
        )
        for n in range(100)
    )
    assert examine(healthy(healthy_device(peers=peers), paths={})) == ()
