"""What the rules of nftables do to the tunnel's datagrams, as far as they can be understood.

A rule set is walked as the kernel does it, in three values: a match may be true, false, or not
known, because it depends on what is not looked at (connection state, sets, marks of others).
Only drops and rejects are reported; `is_certain` says whether nothing unknown led there.
"""

import ipaddress
import json
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wgd.ctl.doctor.facts import FirewallRule

_Rule = dict[str, Any]

_TIMEOUT_SECONDS: Final = 5.0
_MAX_DEPTH: Final = 16
_PASSED: Final = ("ip", "ip6", "inet")
"""Families whose hooks `input` and `output` see IP packets; not arp, bridge, netdev."""
_HARMLESS: Final = ("counter", "log", "comment")
_SYSTEM_PATH: Final = ":/usr/sbin:/sbin"  # where an ordinary user's PATH does not look


@dataclass(frozen=True, slots=True)
class Datagram:
    """One of the tunnel's datagrams; None is what any of them may have.

    `local_port` is ours, whether it goes out or comes in; `interface` is the one it passes.
    """

    hook: str
    is_ipv6: bool | None = None
    remote_address: str | None = None
    local_port: int | None = None
    remote_port: int | None = None
    interface: str | None = None
    mark: int = 0


def read_rules() -> "RuleSet":
    """Return the rule set of this network namespace, as nft's JSON has it.

    Raises OSError if there is no `nft` or it may not look, ValueError if it is not understood.
    """
    program = shutil.which("nft", path=os.environ.get("PATH", os.defpath) + _SYSTEM_PATH)
    if program is None:
        raise FileNotFoundError("there is no program nft to ask (package nftables)")
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command line
            [program, "-j", "list", "ruleset"],
            check=False,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"nft did not answer within {_TIMEOUT_SECONDS:g} s") from None
    if done.returncode:
        raise OSError(done.stderr.strip().partition("\n")[0] or "nft failed")
    rules = json.loads(done.stdout or "{}").get("nftables", [])
    return RuleSet([rule for rule in rules if isinstance(rule, dict)])


class RuleSet:
    """The rules of one network namespace, found by chain; `rules` is the list of nft's JSON."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        chains = [rule["chain"] for rule in rules if "chain" in rule]
        self._bases = sorted(
            (each for each in chains if each.get("type") == "filter" and each["family"] in _PASSED),
            key=lambda chain: int(chain.get("prio", 0)),
        )
        self._rules: defaultdict[tuple[str, str, str], list[_Rule]] = defaultdict(list)
        for each in rules:
            if "rule" in each:
                rule = each["rule"]
                self._rules[rule["family"], rule["table"], rule["chain"]].append(rule)

    def dropping(self, datagram: Datagram, public_key: str = "") -> list[FirewallRule]:
        """Return the rules and policies that drop, or may drop, such a datagram."""
        return [
            FirewallRule(datagram.hook, text, is_certain, public_key)
            for base in self._bases
            if base.get("hook") == datagram.hook
            for text, is_certain in _Walk(self, datagram, base).drops()
        ]

    def of_chain(self, base: _Rule, name: str) -> Sequence[_Rule]:
        """Return the rules of the chain called `name` in the table of `base`."""
        return self._rules.get((base["family"], base["table"], name), ())


class _Walk:
    """The way of a datagram through one base chain and those it jumps to."""

    def __init__(self, rules: RuleSet, datagram: Datagram, base: _Rule) -> None:
        self._rules = rules
        self._datagram = datagram
        self._base = base
        # Whether a chain of one family is passed at all is not known of a datagram of either.
        self._is_certain = datagram.is_ipv6 is not None or base["family"] == "inet"
        self._is_over = False

    def drops(self) -> Iterator[tuple[str, bool]]:
        """Yield each drop in words, and whether it is certain."""
        family = self._base["family"]
        is_ipv6 = self._datagram.is_ipv6
        if is_ipv6 is not None and family == ("ip" if is_ipv6 else "ip6"):
            return
        yield from self._chain(self._base["name"], 0, is_reached=True)
        if not self._is_over and self._base.get("policy") == "drop":
            yield f"the policy of {self._name(self._base['name'])} is drop", self._is_certain

    def _chain(self, name: str, depth: int, *, is_reached: bool) -> Iterator[tuple[str, bool]]:
        """Go through a chain; `is_reached` if it is certain that the datagram comes here."""
        for rule in self._rules.of_chain(self._base, name):
            if self._is_over:
                return
            is_met, verdict = self._judge(rule.get("expr", []))
            if is_met is False or verdict is None:
                continue
            kind, target = verdict
            is_sure = is_reached and bool(is_met)
            match kind:
                case "drop" | "reject":
                    yield self._words(rule, kind), is_sure and self._is_certain
                    self._is_over = is_sure
                case "accept":
                    self._is_over = is_sure
                    self._is_certain = self._is_certain and is_sure
                case "jump" | "goto" if depth < _MAX_DEPTH:
                    yield from self._chain(target, depth + 1, is_reached=is_sure)
                    if kind == "goto" and is_met:
                        return
                case "return" if is_met:
                    return
                case "return":
                    is_reached = False
                case _:  # a map of verdicts
                    self._is_certain = False

    def _judge(self, expressions: Sequence[_Rule]) -> tuple[bool | None, tuple[str, str] | None]:
        """Return whether a rule's matches are met, and its verdict with the target of a jump."""
        is_met: bool | None = True
        verdict = None
        for expression in expressions:
            for kind, body in expression.items():
                if kind == "match":
                    matches = self._match(body)
                    is_met = False if matches is False else (is_met and matches)
                    if is_met is False:
                        return False, None
                elif kind in ("drop", "accept", "reject", "return"):
                    verdict = kind, ""
                elif kind in ("jump", "goto"):
                    verdict = kind, str(body["target"])
                elif kind == "vmap":
                    verdict = kind, ""
                elif kind not in _HARMLESS:
                    is_met = None  # a limit, a set, something of iptables: it may let pass
        return is_met, verdict

    def _match(self, body: _Rule) -> bool | None:
        known = self._value(body.get("left", {}))
        if known is None:
            return None
        found = _is_in(known, body.get("right"))
        if found is None:
            return None
        return not found if body.get("op") == "!=" else found

    def _value(self, left: Any) -> object:
        """Return what the datagram has there; None if that is not known."""
        if not isinstance(left, dict):
            return None
        datagram = self._datagram
        is_out = datagram.hook == "output"
        source_port = datagram.local_port if is_out else datagram.remote_port
        destination_port = datagram.remote_port if is_out else datagram.local_port
        family = None if datagram.is_ipv6 is None else ("ipv6" if datagram.is_ipv6 else "ipv4")
        meta = left.get("meta", {}).get("key")
        if meta is not None:
            known: dict[str, object] = {
                "oifname": datagram.interface if is_out else "",
                "iifname": "" if is_out else datagram.interface,
                "l4proto": "udp",
                "nfproto": family,
                "mark": datagram.mark if is_out else None,
            }
            return known.get(meta)
        payload = left.get("payload", {})
        protocol, name = payload.get("protocol"), payload.get("field")
        if protocol in ("tcp", "icmp", "icmpv6", "sctp", "dccp"):
            return "no such header"
        if protocol in ("udp", "th"):
            return {"sport": source_port, "dport": destination_port}.get(name)
        if protocol in ("ip", "ip6"):
            if datagram.is_ipv6 is not None and protocol != ("ip6" if datagram.is_ipv6 else "ip"):
                return "no such header"
            if name == ("daddr" if is_out else "saddr"):
                return datagram.remote_address
            if name in ("protocol", "nexthdr"):
                return "udp"
        return None

    def _name(self, chain: str) -> str:
        return f"chain {self._base['family']} {self._base['table']} {chain}"

    def _words(self, rule: _Rule, kind: str) -> str:
        comment = f", {rule['comment']!r}" if "comment" in rule else ""
        return f"{kind} in {self._name(rule['chain'])} (handle {rule.get('handle')}{comment})"


def _is_in(value: object, right: Any) -> bool | None:
    """Whether a value is what the right side of a match has; None if that is not understood."""
    if isinstance(right, list):
        right = {"set": right}
    if isinstance(right, dict):
        if "set" in right:
            answers = [_is_in(value, each) for each in right["set"]]
            return True if True in answers else (None if None in answers else False)
        if "range" in right and isinstance(value, int):
            first, last = right["range"]
            return int(first) <= value <= int(last)
        if "prefix" in right:
            network = ipaddress.ip_network(
                f"{right['prefix']['addr']}/{right['prefix']['len']}", strict=False
            )
            try:
                return ipaddress.ip_address(str(value)) in network
            except ValueError:
                return False
        return None
    if isinstance(right, str) and right.startswith(("@", "*")):
        return None  # a named set
    if isinstance(right, str) and right.endswith("*"):
        return str(value).startswith(right[:-1])
    return str(value) == str(right)
