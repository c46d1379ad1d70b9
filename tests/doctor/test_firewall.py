"""Which rules drop a datagram: rule sets as nft's JSON has them, for what the doctor must know."""

from typing import Any

import pytest

from tests.doctor.clinic import healthy, healthy_device, healthy_peer
from wgd.ctl.doctor import firewall
from wgd.ctl.doctor.facts import EndpointPath, Route
from wgd.ctl.doctor.firewall import Datagram, RuleSet
from wgd.ctl.doctor.look import _firewall

OUT = Datagram(
    "output",
    is_ipv6=False,
    remote_address="192.0.2.2",
    local_port=51801,
    remote_port=51802,
    interface="eth0",
    mark=5,
)
IN = Datagram("input", local_port=51801)
DROP: dict[str, Any] = {"drop": None}
ACCEPT: dict[str, Any] = {"accept": None}
REJECT = {"reject": {"type": "icmpx", "expr": "port-unreachable"}}
ESTABLISHED = {
    "match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}
}


def chain(hook: str, policy: str = "accept", family: str = "inet") -> dict[str, Any]:
    values = {"family": family, "table": "t", "name": hook, "type": "filter", "hook": hook}
    return {"chain": {**values, "prio": 0, "policy": policy}}


def rule(
    *expressions: dict[str, Any], chain: str = "output", family: str = "inet"
) -> dict[str, Any]:
    return {
        "rule": {
            "family": family,
            "table": "t",
            "chain": chain,
            "handle": 7,
            "expr": list(expressions),
        }
    }


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def header(protocol: str, field: str, right: object, op: str = "==") -> dict[str, Any]:
    return match({"payload": {"protocol": protocol, "field": field}}, right, op)


def meta(key: str, right: object, op: str = "==") -> dict[str, Any]:
    return match({"meta": {"key": key}}, right, op)


def certainties(rules: list[dict[str, Any]], datagram: Datagram = OUT) -> list[bool]:
    return [each.is_certain for each in RuleSet(rules).dropping(datagram, "key")]


@pytest.mark.parametrize(
    "expressions",
    [
        [],
        [header("udp", "dport", 51802)],
        [header("udp", "sport", 51801)],
        [header("th", "dport", {"range": [50000, 60000]})],
        [header("udp", "dport", {"set": [1, {"range": [51802, 51802]}]})],
        [header("udp", "dport", 1, "!=")],
        [header("ip", "daddr", "192.0.2.2")],
        [header("ip", "daddr", {"prefix": {"addr": "192.0.2.0", "len": 24}})],
        [header("ip", "protocol", "udp"), {"counter": {"packets": 0, "bytes": 0}}],
        [meta("oifname", "eth*"), meta("l4proto", "udp"), meta("mark", 5)],
    ],
)
def test_what_is_met_drops_for_certain(expressions: list[dict[str, Any]]) -> None:
    for verdict in (DROP, REJECT):
        assert certainties([chain("output"), rule(*expressions, verdict)]) == [True]


@pytest.mark.parametrize(
    "expressions",
    [
        [header("udp", "dport", 51803)],
        [header("tcp", "dport", 51802)],
        [header("ip", "daddr", {"set": ["192.0.2.3", {"prefix": {"addr": "10.0.0.0", "len": 8}}]})],
        [header("ip6", "daddr", "2001:db8::1")],
        [header("ip6", "nexthdr", "udp")],
        [meta("oifname", "eth1")],
        [meta("iifname", "eth0")],
        [meta("mark", 5, "!=")],
        [meta("nfproto", "ipv6")],
    ],
)
def test_what_is_not_met_does_not_matter(expressions: list[dict[str, Any]]) -> None:
    assert certainties([chain("output"), rule(*expressions, DROP)]) == []


@pytest.mark.parametrize(
    "expression",
    [
        ESTABLISHED,
        {"limit": {"rate": 5, "per": "second"}},
        {"xt": {"type": "match", "name": "owner"}},
        header("udp", "dport", "@ports"),
        header("udp", "length", 5),
    ],
)
def test_what_is_not_understood_may_drop(expression: dict[str, Any]) -> None:
    assert certainties([chain("output"), rule(expression, DROP)]) == [False]


def test_what_is_accepted_before_is_not_dropped_after() -> None:
    port = header("udp", "dport", 51802)
    policy = chain("output", "drop")
    assert certainties([policy]) == [True]
    assert certainties([policy, rule(port, ACCEPT), rule(DROP)]) == []
    assert certainties([policy, rule(ESTABLISHED, ACCEPT)]) == [False]
    assert certainties([policy, rule(port, {"vmap": {"key": {}, "data": {}}})]) == [False]


def test_chains_that_are_jumped_to() -> None:
    jump = {"jump": {"target": "sub"}}
    port = header("udp", "dport", 51802)

    def walked(*rules: dict[str, Any]) -> list[bool]:
        return certainties([chain("output", "drop"), *rules])

    assert walked(rule(jump), rule(DROP, chain="sub")) == [True]
    assert walked(rule(jump), rule(port, ACCEPT, chain="sub")) == []
    assert walked(rule(jump), rule({"return": None}, chain="sub"), rule(DROP, chain="sub")) == [
        True  # by the policy
    ]
    # Whether it is jumped is not known: neither is what follows.
    assert walked(rule(ESTABLISHED, jump), rule(ACCEPT, chain="sub")) == [False]
    assert walked(rule(ESTABLISHED, jump), rule(DROP, chain="sub")) == [False, True]
    assert len(walked(rule(jump), rule(jump, chain="sub"))) == 1  # a circle ends


def test_hooks_families_and_what_comes_in() -> None:
    port = header("udp", "dport", 51801)
    assert certainties([chain("input", "drop"), rule(DROP, chain="input")]) == []
    assert certainties([chain("input"), rule(port, DROP, chain="input")], IN) == [True]
    source = header("ip", "saddr", "192.0.2.2")
    assert certainties([chain("input"), rule(source, DROP, chain="input")], IN) == [False]
    for family in ("ip6", "arp", "bridge", "netdev"):
        assert certainties([chain("output", "drop", family=family)]) == []
    # Of peers that may be of either family, it is not certain that they get there.
    assert certainties([chain("input", "drop", family="ip6")], IN) == [False]
    assert certainties([chain("input", "drop")], IN) == [True]
    assert certainties([chain("input", "drop", family="bridge")], IN) == []
    found = RuleSet([chain("output", "drop")]).dropping(OUT, "key")[0]
    assert (found.hook, found.public_key) == ("output", "key")
    assert found.text == "the policy of chain inet t output is drop"


def test_only_the_families_that_peers_use_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = RuleSet([chain("input", "drop", family="ip6"), chain("input", "drop", family="bridge")])
    monkeypatch.setattr(firewall, "read_rules", lambda: rules)
    facts = healthy()
    assert _firewall(facts, healthy_device(), []) == ()
    far = healthy_device(peers=(healthy_peer(endpoint="[2001:db8::2]:51820"),))
    (found,) = _firewall(facts, far, [])
    assert found.is_certain
    assert "ip6" in found.text


def test_rules_elsewhere_and_peers_at_one_endpoint_cost_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = [rule(ESTABLISHED, ACCEPT, chain=f"sub{n % 50}") for n in range(500)]
    judged: list[Any] = []
    real = RuleSet.of_chain

    def counted(rules: RuleSet, base: dict[str, Any], name: str) -> Any:
        found = real(rules, base, name)
        judged.extend(found)
        return found

    monkeypatch.setattr(RuleSet, "of_chain", counted)
    rules = RuleSet([chain("output"), rule(DROP), *elsewhere])
    monkeypatch.setattr(firewall, "read_rules", lambda: rules)
    peers = tuple(healthy_peer(public_key=f"{n:043d}=") for n in range(100))
    way = Route("eth0", 1500)
    facts = healthy(paths={peer.public_key: EndpointPath(way, way) for peer in peers})
    found = _firewall(facts, healthy_device(peers=peers), [])
    assert {each.public_key for each in found} == {peer.public_key for peer in peers}
    assert len(judged) == 1
