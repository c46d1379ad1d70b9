"""wgdctl's configuration files: as lenient as `wg`, errors name the line and never a key."""

import base64
from pathlib import Path

import pytest

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange, PeerState
from wgd.ctl import config_file
from wgd.ctl.errors import ConfigFileError
from wgd.uapi.client import Device

ONE, TWO, THREE = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
INTERFACE = f"[Interface]\nPrivateKey = {base64.b64encode(ONE).decode()}\n"
PEER = f"[Peer]\nPublicKey = {base64.b64encode(TWO).decode()}\n"


def b64(key: bytes) -> str:
    return base64.b64encode(key).decode()


def read_endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(host, int(port))


def parse(text: str | bytes) -> DeviceChange:
    def warn(_: str) -> None:
        raise AssertionError("no warning is expected")

    data = text if isinstance(text, bytes) else text.encode()
    return config_file.parse(data, read_endpoint=read_endpoint, warn=warn)


def only_peer(text: str) -> PeerChange:
    (peer,) = parse(text).peers
    return peer


def error(text: str | bytes) -> str:
    with pytest.raises(ConfigFileError) as caught:
        parse(text)
    return str(caught.value)


def add(address: str, length: int) -> AllowedIpChange:
    return AllowedIpChange(Prefix(bytes(map(int, address.split("."))), length))


def test_an_empty_file_says_nothing() -> None:
    for text in ("", "\n \n", "# only a comment", "[Interface]\n", "[interface]"):
        assert parse(text) == DeviceChange()


def test_every_key_is_read() -> None:
    text = (
        f"{INTERFACE}ListenPort = 51820\nFwMark = 0xca6c\n\n{PEER}"
        f"PresharedKey = {b64(THREE)}\nEndpoint = 192.0.2.1:5\n"
        "AllowedIPs = 10.0.0.0/8, 192.0.2.7\nPersistentKeepalive = 25\n"
    )
    peer = PeerChange(
        TWO,
        preshared_key=THREE,
        endpoint=Endpoint("192.0.2.1", 5),
        persistent_keepalive_seconds=25,
        replace_allowed_ips=True,
        allowed_ips=(add("10.0.0.0", 8), add("192.0.2.7", 32)),
    )
    expected = DeviceChange(private_key=ONE, listen_port=51820, fwmark=51820, peers=(peer,))
    assert parse(text) == expected


def test_blanks_case_comments_and_line_ends_do_not_matter() -> None:
    text = "\r\n  [ inter FACE ]\r\n\tLISTEN port=\v5 # five\r\n fwmark = OFF#\r\n"
    assert parse(text) == DeviceChange(listen_port=5, fwmark=0)


def test_what_follows_a_nul_is_not_read() -> None:
    assert parse(b"[Interface]\nListenPort = 5\0x\n") == DeviceChange(listen_port=5)


def test_allowed_ips_add_up_and_of_other_keys_the_last_counts() -> None:
    peer = only_peer(
        f"{PEER}AllowedIPs = 10.0.0.0/8\nPersistentKeepalive = 5\n"
        "allowedips = 11.0.0.0/8\nPersistentKeepalive = off\n"
    )
    assert peer.allowed_ips == (add("10.0.0.0", 8), add("11.0.0.0", 8))
    assert peer.persistent_keepalive_seconds == 0


def test_sections_may_repeat() -> None:
    change = parse(f"{PEER}{INTERFACE}ListenPort = 5\n{PEER}[Interface]\nListenPort = 6\n")
    assert change.private_key == ONE
    assert change.listen_port == 6
    assert [peer.public_key for peer in change.peers] == [TWO, TWO]


def test_plus_and_minus_do_not_replace() -> None:
    peer = only_peer(f"{PEER}AllowedIPs = 10.0.0.0/8\nAllowedIPs = +11.0.0.0/8, -12.0.0.0/8\n")
    assert not peer.replace_allowed_ips
    removed = AllowedIpChange(Prefix(bytes([12, 0, 0, 0]), 8), remove=True)
    assert peer.allowed_ips == (add("10.0.0.0", 8), add("11.0.0.0", 8), removed)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[Interface]\nFoo = bar\n", 2, "Foo is no setting of [Interface]"),
        (f"{PEER}ListenPort = 5\n", 3, "ListenPort is no setting of [Peer]"),
        (f"{INTERFACE}\nListenPort\n", 4, "ListenPort has no value"),
        (f"{PEER}AllowedIPs =\n", 3, "AllowedIPs has no value"),
        ("ListenPort = 5\n", 1, "ListenPort is before the first [Interface] or [Peer]"),
        (f"{INTERFACE}Address = 10.0.0.1/24\n", 3, "wg-quick strip"),
        (f"{INTERFACE}ListenPort = 65536\n", 3, "65535"),
        (f"{INTERFACE}FwMark = 0x100000000\n", 3, "0xffffffff"),
        (f"{PEER}AllowedIPs = 10.0.0.0/33\n", 3, "'10.0.0.0/33'"),
        (f"{PEER}PersistentKeepalive = 65536\n", 3, "65535"),
        (f"{PEER}[Peer]\nEndpoint = 192.0.2.1:5\n", 3, "no PublicKey"),
        ("[Foo]\n", 1, "before the first"),
        ("\ufeff[Interface]\n", 1, "before the first"),
        (b"[Interface]\n\xff\xfe = 5\n", 2, "no setting of [Interface]"),
    ],
)
def test_an_error_names_the_line(text: str | bytes, line: int, words: str) -> None:
    message = error(text)
    assert f"line {line}:" in message
    assert words in message


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "{} = 5",
        "PrivateKey {}",
        "PrivateKey = {}x",
        "PublicKey = {}=",
        "PresharedKey = x{}",
        "PresharedKey: {}",
        "Foo = {}",
    ],
)
@pytest.mark.parametrize("section", ["", "[Interface]\n", "[Peer]\n"])
def test_an_error_never_repeats_a_key(section: str, line: str) -> None:
    secret = b64(bytes(range(32)))
    message = error(section + line.format(secret) + "\n")
    assert secret[:12] not in message
    assert secret[-12:-1] not in message


def test_a_whole_configuration_has_zeros_for_what_is_left_out() -> None:
    change = config_file.whole(parse(PEER))
    assert change.private_key == bytes(32)
    assert (change.listen_port, change.fwmark, change.replace_peers) == (0, 0, True)
    given = config_file.whole(parse(f"{INTERFACE}ListenPort = 5\nFwMark = 6\n"))
    assert (given.private_key, given.listen_port, given.fwmark) == (ONE, 5, 6)


def test_what_is_rendered_is_read_back() -> None:
    peers = (
        PeerState(
            TWO,
            preshared_key=THREE,
            endpoint=Endpoint("192.0.2.1", 5),
            persistent_keepalive_seconds=25,
            allowed_ips=(Prefix(bytes([10, 0, 0, 0]), 8), Prefix(bytes(16), 0)),
        ),
        PeerState(THREE),
    )
    device = Device("wg0", Path("/wg0.sock"), ONE, TWO, 51820, 51820, peers)
    change = parse(config_file.render(device))
    assert (change.private_key, change.listen_port, change.fwmark) == (ONE, 51820, 51820)
    first, second = change.peers
    assert first.preshared_key == THREE
    assert first.endpoint == Endpoint("192.0.2.1", 5)
    assert first.persistent_keepalive_seconds == 25
    assert tuple(c.prefix for c in first.allowed_ips) == peers[0].allowed_ips
    assert second == PeerChange(THREE, replace_allowed_ips=True)
