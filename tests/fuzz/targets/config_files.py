"""What people write: files for `wg` and wg-quick, the words of `wgdctl set`."""

import ipaddress
import os
from pathlib import Path
from typing import Final

from tests.fuzz.target import Target, check_one_line
from tests.fuzz.targets.values_of import (
    BASE64,
    KEYS,
    asking_nobody,
    check_no_key,
    lines,
    state_of,
)
from wgd.configuration import DeviceChange
from wgd.ctl import config_file, set_syntax
from wgd.ctl.errors import ConfigFileError, UsageError, ValueTextError
from wgd.ctl.values import EndpointReader
from wgd.quick import config, save
from wgd.quick import lines as quick_lines
from wgd.quick.errors import QuickError
from wgd.quick.rtnetlink import Link
from wgd.quick.up import _check_endpoint

READ: Final = EndpointReader(
    {"WG_ENDPOINT_RESOLUTION_RETRIES": "2"}, check_one_line, lambda _: None
)


def _warn(text: str) -> None:
    check_one_line(text)


# -- wg's files ------------------------------------------------------------------------------------


def _run_config_file(data: bytes) -> None:
    counted: list[tuple[int, int]] = []
    try:
        change = config_file.parse(
            data,
            read_endpoint=READ.read,
            warn=_warn,
            on_line=lambda number, count: counted.append((number, count)),
        )
    except ConfigFileError as error:
        check_one_line(str(error))
        check_no_key(str(error))
        return
    assert counted == [(n, len(counted)) for n in range(1, data.count(b"\n") + 2)]
    whole = config_file.whole(change)
    state = state_of(whole)
    text = config_file.render(state)
    again = config_file.parse(text.encode("ascii"), read_endpoint=READ.read, warn=_warn)
    assert state_of(config_file.whole(again)) == state
    assert config_file.render(state_of(config_file.whole(again))) == text
    named = config_file.parse(data, read_endpoint=_check_endpoint, warn=_warn, keep_host_names=True)
    for with_name, without in zip(named.peers, change.peers, strict=True):
        assert with_name.public_key == without.public_key
        assert with_name.endpoint_host is None or with_name.endpoint is None


_INTERFACE: Final = lines(
    b"[Interface]", b"PrivateKey = " + BASE64[0], b"ListenPort = 51820", b"FwMark = 0xca6c"
)
_PEERS: Final = lines(
    b"",
    b"[Peer] # the first",
    b"PublicKey = " + BASE64[1],
    b"PresharedKey = " + BASE64[2],
    b"AllowedIPs = 10.0.0.0/8, fd00::/8,192.0.2.1",
    b"Endpoint = 192.0.2.1:51820",
    b"PersistentKeepalive = 25",
    b"",
    b"[Peer]",
    b"PublicKey = " + BASE64[3],
    b"AllowedIPs = +10.0.0.0/8, -fd00::/8",
    b"AllowedIPs = ::/0",
    b"Endpoint = [2001:db8::1]:51820",
    b"PersistentKeepalive = off",
)
_WORDS: Final = (
    *BASE64,
    *(b"[Interface]", b"[Peer]", b"PrivateKey=", b"PublicKey=", b"PresharedKey=", b"ListenPort="),
    *(b"FwMark=", b"AllowedIPs=", b"Endpoint=", b"PersistentKeepalive=", b"off", b"0x", b"domain"),
    *(b"10.0.0.0/8", b"::/0", b"fd00::/8", b"192.0.2.1:51820", b"[2001:db8::1%1]:1", b"#", b"\n"),
    *(b"::ffff:1.2.3.4/96", b"65535", b"4294967295", b"a.example:1", b"\xe2\x84\xaa", b"\0", b"\r"),
)

# -- wg-quick's files ------------------------------------------------------------------------------


class _Network:
    """In place of rtnetlink: the interface has the addresses that the file gives it."""

    def __init__(self, quick: config.QuickConfig) -> None:
        self._quick = quick

    def link(self, _name: str) -> Link:
        return Link(7, self._quick.mtu or 1420, is_up=True, kind="tun")

    def addresses(self, _index: int) -> list[config.IpInterface]:
        return [*self._quick.addresses, ipaddress.ip_interface("fe80::1234/64")]


_PATH: Final = Path("/etc/wireguard/wg0.conf")


def _run_quick_config(data: bytes) -> None:
    stripped = quick_lines.strip(data)
    assert quick_lines.strip(stripped).rstrip(b"\n") == stripped.rstrip(b"\n")
    # Numbers of lines stay true, but for what ends the last one.
    assert quick_lines.for_wg(data).count(b"\n") <= data.replace(b"\0", b"").count(b"\n")
    try:
        quick = config.parse(data, _PATH, "wg0")
    except QuickError as error:
        check_one_line(str(error))
        return
    for text in (*quick.dns_servers, *quick.dns_search):
        assert text
        assert not set(text) & set(" \t\n,")
    assert quick.mtu is None or 68 <= quick.mtu <= 65_535
    assert quick.table is None or 0 <= quick.table < 2**32
    try:
        change = quick.device_change(_check_endpoint, _warn)
    except QuickError as error:
        check_one_line(str(error))
        check_no_key(str(error))
        return
    device_state = state_of(change)
    saved = os.fsencode(save.render(quick, device_state, _Network(quick)))  # type: ignore[arg-type]
    again = config.parse(saved, _PATH, "wg0")
    for name in ("dns_servers", "dns_search", "mtu", "table", "save_config", "hooks"):
        assert getattr(again, name) == getattr(quick, name), name
    assert list(dict.fromkeys(again.addresses)) == list(dict.fromkeys(quick.addresses)) or (
        set(again.addresses) - set(quick.addresses) <= {ipaddress.ip_interface("fe80::1234/64")}
    )
    again_change = again.device_change(_check_endpoint, _warn)
    assert state_of(again_change) == device_state
    hosts = {peer.public_key: peer.endpoint_host for peer in change.peers}
    assert {peer.public_key: peer.endpoint_host for peer in again_change.peers} == hosts


_QUICK: Final = lines(
    b"[Interface]",
    b"Address = 10.0.0.1/24, fd00::1/64",
    b"DNS = 9.9.9.9 ,example.com",
    b"MTU = 1400",
    b"Table = off",
    b"SaveConfig = true",
    b"PreUp = echo %i # comment",
    b"PostUp = iptables -A FORWARD -i %i -j ACCEPT; true",
    b"PostUp=true",
    b"PostDown = false",
    b"PrivateKey = " + BASE64[0],
    b"[Peer]",
    b"PublicKey = " + BASE64[1],
    b"AllowedIPs = 0.0.0.0/0, ::/0",
    b"Endpoint = vpn.example.org:51820",
)
_QUICK_WORDS: Final = (
    *_WORDS,
    *(b"Address=", b"DNS=", b"MTU=", b"Table=", b"SaveConfig=", b"PreUp=", b"PostUp=", b"PreDown="),
    *(b"PostDown=", b"auto", b"main", b"true", b"false", b"%i", b"1420", b"0x7f", b"\xff", b"\x0b"),
)

# -- the words of `set` ----------------------------------------------------------------------------


def _read_key_file(name: str) -> bytes:
    if name != "key":
        raise ValueTextError("cannot read a key")
    return KEYS[4]


def _run_set_words(data: bytes) -> None:
    words = [os.fsdecode(word) for word in data.split(b"\0")]
    try:
        change = set_syntax.parse(
            words, read_key_file=_read_key_file, read_endpoint=READ.read, warn=_warn
        )
    except (UsageError, ValueTextError) as error:
        check_one_line(str(error))
        check_no_key(str(error))
        return
    _check_bounds(change)


def _check_bounds(change: DeviceChange) -> None:
    assert change.listen_port is None or 0 <= change.listen_port <= 65_535
    assert change.fwmark is None or 0 <= change.fwmark < 2**32
    for peer in change.peers:
        assert len(peer.public_key) == 32
        assert peer.persistent_keepalive_seconds is None or (
            0 <= peer.persistent_keepalive_seconds <= 65_535
        )
        for each in peer.allowed_ips:
            assert each.prefix == type(each.prefix).of(*each.prefix)


_SET: Final = b"\0".join(
    (
        *(b"listen-port", b"51820", b"fwmark", b"0xca6c", b"private-key", b"key"),
        *(b"peer", BASE64[1], b"preshared-key", b"key", b"endpoint", b"192.0.2.1:51820"),
        *(b"persistent-keepalive", b"25", b"allowed-ips", b"10.0.0.0/8,+fd00::/8,-192.0.2.1"),
        *(b"peer", BASE64[2], b"remove", b"allowed-ips", b""),
    )
)
_SET_WORDS: Final = (
    *BASE64,
    *(b"\0listen-port\0", b"\0fwmark\0", b"\0private-key\0key", b"\0peer\0", b"\0preshared-key\0"),
    *(b"\0endpoint\0", b"\0persistent-keepalive\0", b"\0allowed-ips\0", b"\0remove", b"off"),
    *(b"[2001:db8::1]:51820", b"fe80::1%1:5", b"domain", b"\xff", b"+", b"-", b"/0", b"0x"),
)

TARGETS: Final = (
    Target(
        "config_file",
        asking_nobody(_run_config_file),
        ("wgd.ctl.config_file", "wgd.ctl.values"),
        lambda: (_INTERFACE, _INTERFACE + _PEERS, _PEERS.lower().replace(b" ", b"")),
        _WORDS,
    ),
    Target(
        "quick_config",
        asking_nobody(_run_quick_config),
        ("wgd.quick.config", "wgd.quick.lines", "wgd.quick.save", "wgd.ctl.config_file"),
        lambda: (_QUICK, _QUICK + _PEERS, _INTERFACE + _PEERS),
        _QUICK_WORDS,
    ),
    Target(
        "set_words",
        asking_nobody(_run_set_words),
        ("wgd.ctl.set_syntax", "wgd.ctl.values"),
        lambda: (_SET,),
        _SET_WORDS,
    ),
)
