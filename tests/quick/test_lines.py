"""`wgdctl strip` prints what `wg-quick strip` prints, and `up` reads what it takes out."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.testbed import require
from wgd.quick import lines

_PIECES = [
    *("[Interface]", "[interface]", "[Peer]", "[Interface", "Interface]"),
    *("Address", "ADDRESS", "dns", "MTU", "Table", "PreUp", "postdown", "SaveConfig"),
    *("PrivateKey", "FwMark", "ListenPort", "AllowedIPs", "Endpoint"),
    *("=", "=", "=", "true", "off", "10.0.0.1/24", "echo %i; true", "#", "*", "$HOME", "`id`"),
    *(" ", "\t", "\r", "\v", "\f", "\\", "\\\\", "'", '"', "\n", "\n", "\n", "é", "\x85", ",", ";"),
]

texts = st.lists(st.sampled_from(_PIECES), max_size=40).map("".join)


def wg_quick_strip(path: Path) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["wg-quick", "strip", path], check=False, capture_output=True)


def test_strip_is_byte_for_byte_that_of_wg_quick(tmp_path: Path) -> None:
    require("wg-quick")
    path = tmp_path / "wg0.conf"
    path.touch(0o600)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(texts)
    def check(text: str) -> None:
        path.write_bytes(text.encode())
        expected = wg_quick_strip(path)
        if expected.returncode == 0:  # else SaveConfig was neither true nor false
            assert lines.strip(path.read_bytes()) == expected.stdout

    check()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"[Interface]",
        b"[Interface]\nAddress = 10.0.0.1\nPrivateKey = x",
        b"[Interface]\r\n  Address=10.0.0.1/24 # mine\r\n\tPrivateKey = x # yours\r\n[Peer]\r\n",
        b"Address = before any section\n[ Interface ]\nMTU = 1\n",
        b"[Interface]\nMTU\nTable=\nDNS = = =\n[Peer]\nMTU = 7\n[interface]\nmtu=8\n",
        b"[Interface] # so it is\nPostUp = echo '#'\nPreUp = a\0b\n",
        b"-n\n-e\\n\n",
    ],
)
def test_strip_of_odd_files(tmp_path: Path, data: bytes) -> None:
    require("wg-quick")
    path = tmp_path / "wg0.conf"
    path.touch(0o600)
    path.write_bytes(data)
    assert lines.strip(data) == wg_quick_strip(path).stdout


def test_what_is_left_for_wg_keeps_its_line_numbers() -> None:
    data = b"[Interface]\nAddress = 10.0.0.1\nPrivateKey = x\nMTU = 1400\n[Peer]\n"
    assert lines.for_wg(data).split(b"\n") == [
        b"[Interface]",
        b"",
        b"PrivateKey = x",
        b"",
        b"[Peer]",
    ]
    assert [line.number for line in lines.read(data) if line.key] == [2, 4]
