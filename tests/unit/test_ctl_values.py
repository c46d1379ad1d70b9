"""wgdctl's values: keys, ports, marks, allowed IPs, endpoints, read as leniently as `wg` does."""

import base64
import socket
from typing import Any

import pytest

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import AllowedIpChange
from wgd.ctl import values
from wgd.ctl.errors import ValueTextError

KEY = bytes([1] * 32)


def no_warning(text: str) -> None:
    raise AssertionError(text)


def reader(
    environment: dict[str, str] | None = None,
) -> tuple[values.EndpointReader, list[str], list[float]]:
    warnings: list[str] = []
    pauses: list[float] = []
    return (
        values.EndpointReader(environment or {}, warnings.append, pauses.append),
        warnings,
        pauses,
    )


def test_keys() -> None:
    text = base64.b64encode(KEY).decode()
    assert values.key(text) == KEY
    assert values.key_text(KEY) == text
    assert values.key_text(bytes(32)) == "(none)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQF=",
        " " + "A" * 43 + "=",
        "ä" * 44,
        "A" * 44,
    ],
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueTextError) as caught:
        values.key(text)
    assert not text or len(text) < 2 or text not in str(caught.value)


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("65535", 65535), ("05", 5), ("domain", 53)])
def test_ports(text: str, port: int) -> None:
    assert values.port(text) == port


@pytest.mark.parametrize("text", ["", "65536", "70000", "-1", "+1", "off", "5;x", "1_0", "٣"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueTextError):
        values.port(text)


@pytest.mark.parametrize(
    ("text", "fwmark"),
    [("0xca6c", 51820), ("off", 0), ("OFF", 0), ("010", 10), ("4294967295", 2**32 - 1)],
)
def test_fwmarks(text: str, fwmark: int) -> None:
    assert values.fwmark(text) == fwmark


@pytest.mark.parametrize("text", ["", "0XA", "0x", "4294967296", "0x100000000", "-1", "12z", "1_0"])
def test_what_is_no_fwmark(text: str) -> None:
    with pytest.raises(ValueTextError):
        values.fwmark(text)


def test_keepalives() -> None:
    texts = ("off", "OFF", "0", "025", "65535")
    assert [values.keepalive_seconds(text) for text in texts] == [0, 0, 0, 25, 65535]
    for text in ("", " 5", "5 ", "65536", "-1"):
        with pytest.raises(ValueTextError):
            values.keepalive_seconds(text)


def test_allowed_ips() -> None:
    ten = Prefix(bytes([10, 0, 0, 0]), 8)
    host = Prefix(bytes([192, 0, 2, 1]), 32)
    v6 = Prefix(b"\xfd" + bytes(15), 8)
    assert values.allowed_ips("", no_warning) == (True, [])
    assert values.allowed_ips("10.0.0.0/08, 192.0.2.1,fd00::/8", no_warning) == (
        True,
        [AllowedIpChange(ten), AllowedIpChange(host), AllowedIpChange(v6)],
    )
    assert values.allowed_ips("+10.0.0.0/8,-fd00::/8", no_warning) == (
        False,
        [AllowedIpChange(ten), AllowedIpChange(v6, remove=True)],
    )


def test_host_bits_are_masked_with_a_warning() -> None:
    warnings: list[str] = []
    _, changes = values.allowed_ips("10.1.2.3/8", warnings.append)
    assert changes == [AllowedIpChange(Prefix(bytes([10, 0, 0, 0]), 8))]
    assert warnings == ["AllowedIP has nonzero host part: 10.1.2.3/8, taken as 10.0.0.0/8"]


@pytest.mark.parametrize(
    "text",
    [
        *(",", "10.0.0.0/8,", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/255.0.0.0"),
        *(
            "10/8",
            "10.0.0.0/8/8",
            "010.0.0.1/32",
            "fe80::%lo/64",
            "fd00::/129",
            "x",
            "+",
            "-",
            "/8",
        ),
        *("++10.0.0.0/8", "10.0.0.0/٨", "10.0.0.1\0"),
    ],
)
def test_what_is_no_allowed_ip(text: str) -> None:
    with pytest.raises(ValueTextError):
        values.allowed_ips(text, no_warning)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1:5", Endpoint("192.0.2.1", 5)),
        ("[::1]:5", Endpoint("::1", 5)),
        ("::1:5", Endpoint("::1", 5)),
        ("[192.0.2.1]:5", Endpoint("192.0.2.1", 5)),
        ("127.1:5", Endpoint("127.0.0.1", 5)),
        ("[fe80::1%77]:5", Endpoint("fe80::1", 5, 77)),
        ("192.0.2.1:domain", Endpoint("192.0.2.1", 53)),
        ("192.0.2.1:0", Endpoint("192.0.2.1", 0)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert reader()[0].read(text) == endpoint


@pytest.mark.parametrize(
    "text",
    ["", ":", ":5", "[]:5", "192.0.2.1", "192.0.2.1:", "[::1]", "[::1]x5", "192.0.2.1:65536"],
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueTextError):
        reader()[0].read(text)


def fail_times(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> None:
    real = socket.getaddrinfo
    left = [times]

    def getaddrinfo(host: Any, *arguments: Any) -> Any:
        if host == "peer.example" and left[0]:
            left[0] -= 1
            raise socket.gaierror(number, "not now")
        return real("192.0.2.9" if host == "peer.example" else host, *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_resolver_that_may_help_later_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_times(monkeypatch, socket.EAI_AGAIN, 3)
    read, warnings, pauses = reader()
    assert read.read("peer.example:5") == Endpoint("192.0.2.9", 5)
    assert pauses == pytest.approx([1.0, 1.2, 1.44])
    assert len(warnings) == 3
    assert "Trying again in 1.20 seconds" in warnings[1]


def test_the_environment_says_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    for retries, pauses_expected in (("0", 0), ("2", 2), ("", 15), ("nonsense", 15)):
        fail_times(monkeypatch, socket.EAI_AGAIN, 1000)
        read, _, pauses = reader({"WG_ENDPOINT_RESOLUTION_RETRIES": retries})
        with pytest.raises(ValueTextError, match="not now"):
            read.read("peer.example:5")
        assert len(pauses) == pauses_expected
        monkeypatch.undo()
    fail_times(monkeypatch, socket.EAI_AGAIN, 100)
    read, _, pauses = reader({"WG_ENDPOINT_RESOLUTION_RETRIES": "infinity"})
    assert read.read("peer.example:5") == Endpoint("192.0.2.9", 5)
    assert max(pauses) == 20


def test_a_name_that_does_not_exist_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_times(monkeypatch, socket.EAI_NONAME, 1000)
    read, _, pauses = reader()
    with pytest.raises(ValueTextError, match=r"peer\.example"):
        read.read("peer.example:5")
    assert pauses == []


def test_a_port_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(ValueTextError, match="a port is a number"):
        values.port("\udcf6")
