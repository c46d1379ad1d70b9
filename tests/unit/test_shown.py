"""What a message repeats of a value: one printable line, and never what may be a key."""

import pytest

from wgd.shown import shown

BASE64 = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAUA="


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hello", "'hello'"),
        (b"hello", "'hello'"),
        ("", "''"),
        ("a\nb\x1b[2J", r"'a\nb\x1b[2J'"),
        ("\udcf6é", r"'\udcf6\xe9'"),
        (b"\xff", r"'\xff'"),
        ("vpn.a-rather-long-name.example.org:51820", "'vpn.a-rather-long-name.example.org:51820'"),
        ("-" * 100, f"'{'-' * 80}'"),
    ],
)
def test_a_value_is_quoted_and_cut(value: str | bytes, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    "value",
    [
        BASE64,
        BASE64[:30],
        f"51820PrivateKey={BASE64}",
        "-" * 78 + BASE64,
        "40" * 32,
        b"40" * 32,
        b"51820\rpreshared_key=" + b"Ab" * 32,
    ],
)
def test_what_may_be_a_key_is_not(value: str | bytes) -> None:
    assert shown(value) == "what may be a key"
