"""Show what wgd and wireguard-go do with congestion marks, with the marks of their own handshakes,
and with packets that have nowhere to go. In real namespaces, once over IPv4 and once over IPv6.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

from family import Family
from implementations import Implementation, find_implementations
from machine import Machine
from manners_probe import INITIATION, RESPONSE, TRANSPORT, InnerFlow, Sniffer, connect
from processes import BenchmarkError, defer_interruptions, run
from testbed import LISTEN_PORT, End, Tunnel, check_requirements, inside, tunnel

MTU: Final = 1420
FIELDS: Final = ("not-ECT", "ECT(1)", "ECT(0)", "CE")
"""By their numbers (RFC 3168 section 5)."""
_CE: Final = 3
_ORDER: Final = (0, 2, 1, 3)
_NOBODY: Final = 99
_LOST: Final = 98

Findings = Mapping[str, str]
"""What was seen, by what was looked at."""


def main() -> int:
    """Look at everybody; 0 when done, 1 with a line that says what is wrong, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="manners", description=__doc__)
    parser.add_argument(
        "--peers",
        default="wgd-native,wgd-portable",
        help="whom to look at beside wireguard-go (default: %(default)s)",
    )
    given = parser.parse_args()
    try:
        check_requirements()
        implementations, _ = find_implementations(given.peers.split(","), {})
        defer_interruptions()
        seen = {
            (family, implementation.name): _look_at(implementation, family)
            for family in Family
            for implementation in implementations
        }
        sys.stdout.write(f"{Machine.this()}\n{markdown(implementations, seen)}")
    except (BenchmarkError, OSError) as error:
        sys.stderr.write(f"manners: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("manners: interrupted; everything it made is removed\n")
        return 130
    return 0


def _look_at(implementation: Implementation, family: Family) -> Findings:
    sys.stderr.write(f"manners: {implementation.name} over IP{family.value}\n")
    with tunnel(implementation, MTU, family) as tested:
        found: dict[str, str] = {}
        found.update(_nowhere_to_go(tested))
        with (
            closing(Sniffer(tested.right.namespace, "cable")) as sniffer,
            closing(
                InnerFlow(
                    tested.left.namespace, tested.right.namespace, tested.right.address, family
                )
            ) as flow,
        ):
            found.update(_handshake(tested, sniffer, flow))
            for field in _ORDER:
                sniffer.drain()
                flow.send(field)
                outer = sniffer.next_of(TRANSPORT)
                found[f"inner {FIELDS[field]}: outside"] = _class(outer)
                _expect(flow, field)
            _mark_everything(tested.left, family)
            for field in _ORDER:
                flow.send(field)
                found[f"inner {FIELDS[field]}, outer CE: delivered"] = _class(flow.received())
        return found


def _class(traffic_class: int | None) -> str:
    if traffic_class is None:
        return "dropped"
    dscp = traffic_class >> 2
    return FIELDS[traffic_class & 3] + (f", DSCP {dscp}" if dscp else "")


def _expect(flow: InnerFlow, field: int) -> None:
    came_with = flow.received()
    if came_with != field:
        raise BenchmarkError(f"a packet sent with {_class(field)} came with {_class(came_with)}")


def _nowhere_to_go(tested: Tunnel) -> Findings:
    family, left = tested.family, tested.left
    key = run("wg", "pubkey", stdin=run("wg", "genkey")).strip()
    _set_peer(left, key, family.address(_LOST), family)
    return {
        f"connect to {what}": str(connect(left.namespace, family.address(number), family))
        for what, number in (("an address of no peer", _NOBODY), ("a peer without endpoint", _LOST))
    }


def _set_peer(end: End, key: str, address: str, family: Family, *words: str) -> None:
    allowed = ("allowed-ips", f"{address}/{family.host_prefix_length}")
    run(*inside(end.namespace, "wg", "set", end.interface, "peer", key, *allowed, *words))


def _handshake(tested: Tunnel, sniffer: Sniffer, flow: InnerFlow) -> Findings:
    """Let the left end do a handshake anew."""
    left, right, family = tested.left, tested.right, tested.family
    wg = inside(right.namespace, "wg", "show", right.interface, "public-key")
    key = run(*wg).strip()
    run(*inside(left.namespace, "wg", "set", left.interface, "peer", key, "remove"))
    sniffer.drain()
    endpoint = family.endpoint(right.underlay_address, LISTEN_PORT)
    _set_peer(left, key, right.address, family, "endpoint", endpoint)
    flow.send(0)
    found = {
        "an initiation": _class(sniffer.next_of(INITIATION)),
        "a response": _class(sniffer.next_of(RESPONSE)),
    }
    _expect(flow, 0)
    return found


def _mark_everything(end: End, family: Family) -> None:
    """Let a congested router be at this end: it marks all that goes to the other."""
    protocol = "ip" if family is Family.V4 else "ip6"
    for command in (
        "add table inet congested",
        "add chain inet congested out { type filter hook output priority 0; }",
        f"add rule inet congested out udp dport {LISTEN_PORT} {protocol} ecn set ce",
    ):
        run(*inside(end.namespace, "nft", command))


def markdown(
    implementations: Sequence[Implementation], seen: Mapping[tuple[Family, str], Findings]
) -> str:
    """Return a table for each family: a line for each thing looked at."""
    lines = [f"{each.name}: {each.version}" for each in implementations]
    names = [each.name for each in implementations]
    for family in sorted({family for family, _ in seen}, key=lambda each: each.value):
        lines += [
            "",
            f"| IP{family.value} | {' | '.join(names)} |",
            "|---" * (len(names) + 1) + "|",
        ]
        for what in seen[family, names[0]]:
            row = " | ".join(seen[family, name][what] for name in names)
            lines.append(f"| {what} | {row} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
