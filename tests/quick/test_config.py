"""What a wg-quick file says, and what is said about one that is wrong."""

import base64
from pathlib import Path

import pytest

from wgd.addresses import Endpoint
from wgd.ctl.values import EndpointReader
from wgd.quick import config
from wgd.quick.errors import QuickError
from wgd.quick.up import syntax

PATH = Path("/somewhere/wg0.conf")
KEY = base64.b64encode(bytes(range(32))).decode()


def parse(text: str) -> config.QuickConfig:
    return config.parse(text.encode(), PATH, "wg0")


def test_everything_a_file_can_say() -> None:
    read = parse(
        "[Interface]\nAddress = 10.0.0.1/24,fd00::1/64 192.0.2.9\naddress=10.1.0.1/16\n"
        "DNS = 9.9.9.9, fd53::1,example.com\nDNS = example.org\nMTU = 1400\nTable = 0x10\n"
        "SaveConfig = TRUE\nPreUp = a\nPostUp = b=c # d\nPostUp = e\nPreDown = f\nPostDown = g\n"
    )
    assert [str(address) for address in read.addresses] == [
        *("10.0.0.1/24", "fd00::1/64", "192.0.2.9/32", "10.1.0.1/16")
    ]
    assert read.dns_servers == ("9.9.9.9", "fd53::1")
    assert read.dns_search == ("example.com", "example.org")
    assert (read.mtu, read.table, read.table_text) == (1400, 16, "0x10")
    assert read.save_config
    assert read.hooks == config.Hooks(("a",), ("b=c", "e"), ("f",), ("g",))


@pytest.mark.parametrize(
    ("text", "table"), [("", None), ("auto", None), ("off", 0), ("main", 254), ("7", 7)]
)
def test_tables(text: str, table: int | None) -> None:
    assert parse(f"[Interface]\nTable = {text}").table == table


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("Address = 10.0.0.256/24", "Address is an IP address"),
        ("Address = fe80::1%eth0/64", "Address is an IP address"),
        ("MTU = 67", "MTU is a number in 68..65535"),
        ("MTU = 1400x", "MTU is a number"),
        ("Table = nowhere-near", "Table is off, auto, a number"),
        ("Table = 4294967296", "Table is off, auto, a number"),
        ("Table = 0", "Table is off, auto, a number"),
        ("Table = 1e3", "Table is off, auto, a number"),
        ("SaveConfig = maybe", "SaveConfig is true or false"),
        ("SaveConfig", "SaveConfig is true or false, not empty"),
    ],
)
def test_an_error_names_file_line_and_cure(line: str, complaint: str) -> None:
    with pytest.raises(QuickError) as caught:
        parse(f"# first\n[Interface]\n\n{line}\n")
    assert str(caught.value).startswith(f"{PATH}, line 4: {complaint}")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("[Interface]\nAddress = 10.0.0.1\nPrivateKey = short", "line 3: a key is 44 characters"),
        ("[Peer]\nMTU = 1400", "line 2: MTU is for wg-quick(8)"),
        ("[Interface]\nMTU = 1400\nColour = red", "line 3: Colour is no setting of [Interface]"),
        (f"[Peer]\nPublicKey = {KEY}\nEndpoint = example.com", "line 3: an endpoint is host:port"),
        (f"[Peer]\nPublicKey = {KEY}\nEndpoint = example.com:99999", "line 3: a port is a number"),
        (f"[Peer]\nPublicKey = {KEY}\nEndpoint = [::1]", "line 3: an endpoint is host:port"),
    ],
)
def test_an_error_in_what_is_for_wg_has_the_line_of_the_file(lines: str, complaint: str) -> None:
    with pytest.raises(QuickError) as caught:
        syntax(parse(lines))
    assert str(caught.value).startswith(f"{PATH}, {complaint}")
    assert KEY not in str(caught.value)


def test_host_names_of_endpoints_are_kept_and_addresses_are_not_names() -> None:
    other = base64.b64encode(bytes(range(1, 33))).decode()
    third = base64.b64encode(bytes(range(2, 34))).decode()
    read = parse(
        f"[Peer]\nPublicKey = {KEY}\nEndpoint = localhost:7\n"
        f"[Peer]\nPublicKey = {other}\nEndpoint = [2001:db8::1]:8\n"
        f"[Peer]\nPublicKey = {third}\nEndpoint = [fe80::1%lo]:9\n"
    )
    assert syntax(read).peers[0].endpoint is None
    reader = EndpointReader({}, pytest.fail, lambda _: pytest.fail("it waits"))
    change = read.device_change(reader.read, pytest.fail)
    assert [peer.endpoint_host for peer in change.peers] == ["localhost:7", None, None]
    first, second, zoned = (peer.endpoint for peer in change.peers)
    assert first in (Endpoint("127.0.0.1", 7), Endpoint("::1", 7))
    assert second == Endpoint("2001:db8::1", 8)
    assert zoned == Endpoint("fe80::1", 9, scope_id=1)  # lo is the first interface everywhere


def test_the_file_of_a_name_and_the_name_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wg0.conf").touch()
    assert config.find("wg0", tmp_path) == (tmp_path / "wg0.conf", "wg0")
    assert config.find(str(tmp_path / "wg0.conf")) == (tmp_path / "wg0.conf", "wg0")
    monkeypatch.chdir(tmp_path)
    assert config.find("./wg0.conf") == (tmp_path / "wg0.conf", "wg0")
    with pytest.raises(QuickError, match=r"write \./wg0\.conf"):
        config.find("wg0.conf", tmp_path)
    (tmp_path / "wg0.txt").touch()
    (tmp_path / f"{'w' * 16}.conf").touch()
    for name in ("wg0.txt", f"{'w' * 16}.conf"):
        with pytest.raises(QuickError, match="does not tell the interface"):
            config.find(f"./{name}", tmp_path)


def test_no_secret_in_a_repr() -> None:
    assert KEY not in repr(parse(f"[Interface]\nPrivateKey = {KEY}\n"))
