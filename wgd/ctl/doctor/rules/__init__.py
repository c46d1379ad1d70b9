"""The rules: each takes facts and a device and yields findings. Pure: no clock, no system."""

from collections.abc import Callable, Iterator
from typing import Final

from wgd.ctl.doctor.catalog import Finding, find, in_order
from wgd.ctl.doctor.facts import Facts
from wgd.ctl.doctor.rules import handshakes, interface, paths, peers, sessions, sizes
from wgd.status import DeviceStatus

Rule = Callable[[Facts, DeviceStatus], Iterator[Finding]]

RULES: Final[tuple[Rule, ...]] = (
    *interface.RULES,
    *peers.RULES,
    *paths.RULES,
    *handshakes.RULES,
    *sessions.RULES,
    *sizes.RULES,
)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Return all findings, the gravest first."""
    device = facts.device
    if device is None:
        return (find("no-daemon", interface=facts.interface, reason=facts.refusal),)
    return in_order([finding for rule in RULES for finding in rule(facts, device)])
