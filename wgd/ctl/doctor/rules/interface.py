"""The interface itself: is it up, does it listen, has it a key, an address and peers."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from wgd.constants import SECOND_NS
from wgd.ctl.doctor.catalog import Finding, find
from wgd.ctl.doctor.facts import Facts, Source
from wgd.ctl.doctor.rules.common import named
from wgd.status import DeviceStatus

_CLOCK_TOLERANCE_NS: Final = 2 * SECOND_NS


def down(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """The link is down, or up without a socket."""
    is_up = facts.link.is_up if facts.link is not None else device.is_up
    knows = facts.link is not None or facts.source is not Source.GET
    if not is_up and knows:
        yield find("interface-down", interface=facts.interface)
    elif knows and facts.source is not Source.GET and not device.is_listening:
        yield find("not-listening", interface=facts.interface, port=device.listen_port)


def without_key(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """There is no private key."""
    if not device.public_key:
        yield find("no-private-key", interface=facts.interface)


def without_address(facts: Facts, _device: DeviceStatus) -> Iterator[Finding]:
    """There is no address but link-local ones."""
    link = facts.link
    if link is not None and link.is_up and not any(map(_is_global, link.addresses)):
        yield find("no-address", interface=facts.interface)


def without_peers(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """There are no peers."""
    if not device.peers:
        own_key = device.public_key or "which is not set yet"
        yield find("no-peers", interface=facts.interface, own_key=own_key)


def elsewhere(facts: Facts, _device: DeviceStatus) -> Iterator[Finding]:
    """The TUN is in another network namespace."""
    if facts.link_is_elsewhere:
        yield find("elsewhere", interface=facts.interface)


def wrong_clock(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Something that has happened is still to come."""
    later = [
        (facts.system.software_made_ns, "this wgd was installed on"),
        (device.started_ns, "its daemon was started on"),
        *(
            (p.last_handshake_ns, f"the last handshake with {named(p)} was on")
            for p in device.peers
        ),
    ]
    for when_ns, what in later:
        if when_ns > facts.now_ns + _CLOCK_TOLERANCE_NS:
            reason = f"{what} {_date(when_ns)}"
            yield find("clock-wrong", now=_date(facts.now_ns), reason=reason)
            return


def under_load(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Callers must prove their address."""
    if device.is_under_load:
        yield find("under-load", interface=facts.interface)


RULES: Final = (
    down,
    without_key,
    without_address,
    without_peers,
    elsewhere,
    wrong_clock,
    under_load,
)


def _is_global(address: str) -> bool:
    return not address.lower().startswith("fe80:")


def _date(when_ns: int) -> str:
    return datetime.fromtimestamp(when_ns // SECOND_NS, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
