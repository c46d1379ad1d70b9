"""syncconf's comparison: what is so already is left alone, and the end is what the file says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange, PeerState
from wgd.ctl.config_file import whole
from wgd.ctl.sync import difference
from wgd.uapi.client import Device

KEYS = [bytes([number] * 32) for number in range(1, 5)]
PREFIXES = [Prefix(bytes([10, number, 0, 0]), 16) for number in range(4)]
ENDPOINTS = [Endpoint("192.0.2.1", 5), Endpoint("192.0.2.2", 6)]
SECRET = bytes([9] * 32)

Table = dict[bytes, tuple[tuple[bytes, Endpoint | None, int], frozenset[Prefix]]]
"""For each peer: preshared key, endpoint, persistent keepalive; and its prefixes."""


def device(*peers: PeerState, port: int = 7) -> Device:
    return Device("wg0", Path("/wg0.sock"), SECRET, SECRET, port, 8, peers)


def section(key: int, *prefixes: int, **more: object) -> PeerChange:
    changes = tuple(AllowedIpChange(PREFIXES[number]) for number in prefixes)
    fields: dict[str, object] = {"replace_allowed_ips": True, "allowed_ips": changes, **more}
    return PeerChange(KEYS[key], **fields)  # type: ignore[arg-type]  # fields by name


def file(*sections: PeerChange) -> DeviceChange:
    return whole(DeviceChange(private_key=SECRET, listen_port=7, fwmark=8, peers=sections))


def peer(key: int, *prefixes: int, **more: object) -> PeerState:
    allowed_ips = tuple(PREFIXES[number] for number in prefixes)
    return PeerState(KEYS[key], allowed_ips=allowed_ips, **more)  # type: ignore[arg-type]  # as above


def test_nothing_to_do() -> None:
    same = peer(0, 1, 0, endpoint=ENDPOINTS[0], persistent_keepalive_seconds=25)
    wanted = section(0, 0, 1, endpoint=ENDPOINTS[0], persistent_keepalive_seconds=25)
    assert difference(device(same), file(wanted)) == DeviceChange()


def test_an_endpoint_that_the_file_does_not_give_is_left_alone() -> None:
    roamed = peer(0, endpoint=ENDPOINTS[1])
    assert difference(device(roamed), file(section(0))) == DeviceChange()


def test_vanished_peers_go_first_and_new_ones_come() -> None:
    change = difference(device(peer(0, 0), peer(1, 1)), file(section(2, 0), section(1, 1)))
    assert change.peers == (PeerChange(KEYS[0], remove=True), section(2, 0))
    assert not change.replace_peers


def test_what_the_file_no_longer_has_is_taken_away() -> None:
    before = peer(0, 0, preshared_key=SECRET, persistent_keepalive_seconds=25)
    (change,) = difference(device(before), file(section(0, 0))).peers
    expected = PeerChange(KEYS[0], preshared_key=bytes(32), persistent_keepalive_seconds=0)
    assert change == expected


def test_the_interface_is_compared_too() -> None:
    wanted = whole(DeviceChange())
    expected = DeviceChange(private_key=bytes(32), listen_port=0, fwmark=0)
    assert difference(device(), wanted) == expected


def test_plus_and_minus_are_passed_on() -> None:
    minus = PeerChange(KEYS[0], allowed_ips=(AllowedIpChange(PREFIXES[0], remove=True),))
    assert difference(device(peer(0, 0)), file(minus)).peers == (minus,)


def test_a_peer_left_alone_keeps_a_prefix_that_the_file_gives_twice() -> None:
    change = difference(device(peer(0), peer(1, 0)), file(section(0, 0, 1), section(1, 0)))
    assert change.peers == (section(0, 1),)


def apply(peers: tuple[PeerState, ...], changes: tuple[PeerChange, ...]) -> Table:
    """What a daemon makes of changes."""
    table: dict[bytes, tuple[bytes, Endpoint | None, int]] = {
        p.public_key: (p.preshared_key, p.endpoint, p.persistent_keepalive_seconds) for p in peers
    }
    owners = {prefix: p.public_key for p in peers for prefix in p.allowed_ips}
    for change in changes:
        key = change.public_key
        if change.remove or change.replace_allowed_ips:
            owners = {prefix: owner for prefix, owner in owners.items() if owner != key}
        if change.remove:
            table.pop(key, None)
            continue
        secret, endpoint, seconds = table.get(key, (bytes(32), None, 0))
        table[key] = (
            secret if change.preshared_key is None else change.preshared_key,
            endpoint if change.endpoint is None else change.endpoint,
            seconds
            if change.persistent_keepalive_seconds is None
            else change.persistent_keepalive_seconds,
        )
        for allowed_ip in change.allowed_ips:
            owners[allowed_ip.prefix] = key
    return {
        key: (found, frozenset(prefix for prefix, owner in owners.items() if owner == key))
        for key, found in table.items()
    }


_sections = st.builds(
    lambda key, prefixes, secret, endpoint, seconds: section(
        key,
        *prefixes,
        preshared_key=secret,
        endpoint=endpoint,
        persistent_keepalive_seconds=seconds,
    ),
    st.integers(0, 3),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([None, SECRET]),
    st.sampled_from(ENDPOINTS),
    st.sampled_from([None, 0, 25]),
)


def _states(sections: list[PeerChange]) -> tuple[PeerState, ...]:
    """A device that was given these sections."""
    owners = {c.prefix: s.public_key for s in sections for c in s.allowed_ips}
    return tuple(
        PeerState(
            s.public_key,
            preshared_key=s.preshared_key or bytes(32),
            endpoint=s.endpoint,
            persistent_keepalive_seconds=s.persistent_keepalive_seconds or 0,
            allowed_ips=tuple(p for p, owner in owners.items() if owner == s.public_key),
        )
        for s in {s.public_key: s for s in sections}.values()
    )


@given(st.lists(_sections, max_size=4), st.lists(_sections, max_size=4))
def test_the_end_is_that_of_setconf(before: list[PeerChange], wanted: list[PeerChange]) -> None:
    peers = _states(before)
    change = difference(device(*peers), file(*wanted))
    assert apply(peers, change.peers) == apply((), file(*wanted).peers)
    again = apply(peers, change.peers)
    settled = difference(device(*_rebuilt(again)), file(*wanted))
    assert settled == DeviceChange()


def _rebuilt(table: Table) -> list[PeerState]:
    return [
        PeerState(
            key,
            preshared_key=secret,
            endpoint=endpoint,
            persistent_keepalive_seconds=seconds,
            allowed_ips=tuple(prefixes),
        )
        for key, ((secret, endpoint, seconds), prefixes) in table.items()
    ]


@pytest.mark.parametrize("count", [20_000])
def test_many_peers_are_compared_in_no_time(count: int) -> None:
    keys = [number.to_bytes(32, "big") for number in range(1, count + 1)]
    prefixes = [Prefix(number.to_bytes(4, "big"), 32) for number in range(count)]
    peers = tuple(PeerState(k, allowed_ips=(p,)) for k, p in zip(keys, prefixes, strict=True))
    sections = tuple(
        PeerChange(k, replace_allowed_ips=True, allowed_ips=(AllowedIpChange(p),))
        for k, p in zip(keys, prefixes, strict=True)
    )
    # Quadratic work would take minutes.
    assert difference(device(*peers), file(*sections)) == DeviceChange()
