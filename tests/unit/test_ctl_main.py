"""wgdctl from its command line to a socket in a directory of its own, without root."""

import base64
import io
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.fake_uapi import FakeUapi
from tests.testbed import wait_until
from wgd.ctl import progress as progress_module
from wgd.ctl.main import main
from wgd.ctl.progress import Progress
from wgd.ctl.where import survey_text
from wgd.uapi.discovery import FoundSocket, Note, Survey

KEY = base64.b64encode(bytes([1] * 32)).decode()
PEER_HEX = "01" * 32
PEER = f"public_key={PEER_HEX}\nallowed_ip=10.1.0.0/16\nlast_handshake_time_sec=1700000000\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WG_COLOR_MODE", "WG_HIDE_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WGD_UAPI_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def fake(directory: Path) -> Iterator[FakeUapi]:
    with FakeUapi(f"fx{os.getpid()}", directory=directory) as server:
        yield server


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


# -- dispatch --------------------------------------------------------------------------------------


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("help", "-h", "--help"):
        assert run(word) == 0
        assert "syncconf" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("wgdctl v")
    assert run("setconf", "--help") == 0
    assert "<configuration filename>" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        *(["foo"], ["set"], ["set", "wg0"], ["showconf"], ["showconf", "wg0", "x"], ["setconf"]),
        *(["setconf", "wg0"], ["addconf", "a", "b", "c"], ["syncconf"], ["genkey", "x"]),
        *(["genpsk", "x"], ["pubkey", "x"], ["where", "x"], ["show", "all", "foo"]),
        *(["show", "wg0", "dump", "x"], ["show", "interfaces", "dump"]),
        *(["show", "all", "dump", "--json"], ["--uapi-dir"], ["--uapi-dir="], ["--foo"]),
        *(["show", "interfaces", "--json"], ["--sandbox-bundle-id"]),
    ],
)
def test_a_wrong_usage_is_status_1_and_told_on_stderr(
    words: list[str], directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err


def test_the_directory_comes_from_option_or_environment(
    fake: FakeUapi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("show", "interfaces") == 0
    assert fake.name in capsys.readouterr().out.split()
    monkeypatch.delenv("WGD_UAPI_DIR")
    assert run("show", "interfaces") == 0
    assert fake.name not in capsys.readouterr().out.split()
    for option in (["--uapi-dir", str(tmp_path)], [f"--uapi-dir={tmp_path}"]):
        assert run(*option, "show", "interfaces") == 0
        assert fake.name in capsys.readouterr().out.split()


def test_the_containers_of_given_bundle_ids_are_looked_into(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ("--sandbox-bundle-id", "org.example.a", "--sandbox-bundle-id=org.example.b")
    assert run(*ids, "where") == 0
    out = capsys.readouterr().out
    assert f"place: {directory}/Library/Containers/org.example.a/Data\n" in out
    assert f"place: {directory}/Library/Containers/org.example.b/Data\n" in out
    assert "com.wireguard" not in out


# -- show ------------------------------------------------------------------------------------------


def test_without_a_subcommand_devices_are_shown(
    fake: FakeUapi, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.state = PEER
    assert run() == 0
    assert f"interface: {fake.name}\n\npeer: {KEY}\n" in capsys.readouterr().out


def test_json(fake: FakeUapi, capsys: pytest.CaptureFixture[str]) -> None:
    fake.state = (
        f"private_key={'58' * 32}\nlisten_port=5\nfwmark=51820\n{PEER}"
        f"preshared_key={'02' * 32}\nendpoint=[::1]:7\nrx_bytes=8\ntx_bytes=9\n"
        f"persistent_keepalive_interval=25\npublic_key={'03' * 32}\n"
    )
    expected_peer = {
        "presharedKey": base64.b64encode(bytes([2] * 32)).decode(),
        "endpoint": "[::1]:7",
        "latestHandshake": 1700000000,
        "transferRx": 8,
        "transferTx": 9,
        "persistentKeepalive": 25,
        "allowedIps": ["10.1.0.0/16"],
    }
    for words in (["--json"], ["--json", "all"], [fake.name, "--json"]):
        assert run("show", *words) == 0
        device = json.loads(capsys.readouterr().out)[fake.name]
        assert device["privateKey"] == base64.b64encode(b"X" * 32).decode()
        assert device["publicKey"] == "TIUfxQRqlJPAaY2at9oDdru53rbb/O3E3Ih7X/onmms="
        assert (device["listenPort"], device["fwmark"]) == (5, 51820)
        other = base64.b64encode(bytes([3] * 32)).decode()
        bare = {"transferRx": 0, "transferTx": 0, "allowedIps": []}
        assert device["peers"] == {KEY: expected_peer, other: bare}


def test_a_device_that_fails_hides_no_other(
    fake: FakeUapi, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeUapi(f"fy{os.getpid()}", directory=directory) as broken:
        broken.get_errno = 13
        assert run("show") == 0
        told = capsys.readouterr()
        assert f"interface: {fake.name}\n" in told.out
        assert broken.name not in told.out
        assert broken.name in told.err
        assert run("show", broken.name) == 1


def test_what_was_skipped_is_told(
    fake: FakeUapi, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = directory / f"fz{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    assert run("show") == 0
    told = capsys.readouterr()
    assert f"interface: {fake.name}\n" in told.out
    assert str(stale) in told.err
    assert run("where") == 0
    out = capsys.readouterr().out
    assert f"place: {directory}\n  {fake.name}: {directory}/{fake.name}.sock\n" in out
    assert str(stale) in out.partition("left out:")[2]
    assert stale.exists()


def test_a_device_that_is_not_there(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["show", "nope"], ["showconf", "nope"], ["set", "nope", "fwmark", "5"]):
        assert run(*words) == 1
        assert "nope" in capsys.readouterr().err


def test_where() -> None:
    survey = Survey(
        (Path("/one"), Path("/t\x1bwo")),
        (FoundSocket("wg0", Path("/one/wg0.sock"), Path("/one")),),
        (Note(Path("/t\x1bwo"), "cannot be read"),),
    )
    assert survey_text(survey) == (
        "place: /one\n  wg0: /one/wg0.sock\nplace: '/t\\x1bwo'\n  (nothing)\n"
        "left out:\n  '/t\\x1bwo': cannot be read\n"
    )


# -- configuring -----------------------------------------------------------------------------------


def conf(tmp_path: Path, text: str) -> str:
    path = tmp_path / "wg.conf"
    path.write_text(text)
    return str(path)


def test_set(fake: FakeUapi) -> None:
    assert run("set", fake.name, "listen-port", "5", "peer", KEY, "allowed-ips", "") == 0
    assert fake.sets == [f"listen_port=5\npublic_key={PEER_HEX}\nreplace_allowed_ips=true\n"]


def test_setconf_addconf_and_syncconf(fake: FakeUapi, tmp_path: Path) -> None:
    file = conf(tmp_path, f"[Peer]\nPublicKey = {KEY}\n")
    peer = f"public_key={PEER_HEX}\nreplace_allowed_ips=true\n"
    zeros = f"private_key={'0' * 64}\nlisten_port=0\nfwmark=0\n"
    assert run("setconf", fake.name, file) == 0
    assert run("addconf", fake.name, file) == 0
    assert fake.sets == [f"{zeros}replace_peers=true\n{peer}", peer]
    fake.sets.clear()
    fake.state = f"listen_port=5\npublic_key={'02' * 32}\n{PEER}"
    assert run("syncconf", fake.name, file) == 0
    assert fake.sets == [f"listen_port=0\npublic_key={'02' * 32}\nremove=true\n{peer}"]
    fake.sets.clear()
    fake.state = PEER.replace("allowed_ip=10.1.0.0/16\n", "")
    assert run("syncconf", fake.name, file) == 0
    assert fake.sets == []


def test_a_refusal_is_status_1(fake: FakeUapi, capsys: pytest.CaptureFixture[str]) -> None:
    for errno in (98, -98):
        fake.set_errno = errno
        assert run("set", fake.name, "listen-port", "5") == 1
        assert "EADDRINUSE" in capsys.readouterr().err


def test_a_bad_file_is_refused_whole(
    fake: FakeUapi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = conf(tmp_path, f"[Interface]\nListenPort = 5\nPrivateKey = {KEY}x\n")
    for action in ("setconf", "addconf", "syncconf"):
        assert run(action, fake.name, file) == 1
        message = capsys.readouterr().err
        assert "line 3" in message
        assert file in message
        assert KEY not in message
    assert run("setconf", fake.name, str(tmp_path / "missing")) == 1
    assert "missing" in capsys.readouterr().err
    assert fake.sets == []


# -- keys ------------------------------------------------------------------------------------------


def test_genkey_and_genpsk(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("genkey") == 0
    private_key = base64.b64decode(capsys.readouterr().out.removesuffix("\n"), validate=True)
    assert len(private_key) == 32
    assert private_key[0] & 7 == 0
    assert private_key[31] & 0xC0 == 0x40
    assert run("genpsk") == 0
    first = capsys.readouterr().out
    assert run("genpsk") == 0
    assert first != capsys.readouterr().out


def test_pubkey(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (KEY, f"{KEY}\n", f"{KEY} \n \n"):
        feed(monkeypatch, text)
        assert run("pubkey") == 0
        assert capsys.readouterr().out == "pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogk=\n"
    for text in ("", "abc", f" {KEY}", f"{KEY}x", f"{KEY}\n{KEY}", "\u00e4" * 44):
        feed(monkeypatch, text)
        assert run("pubkey") == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert KEY not in told.err


def test_key_files(fake: FakeUapi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key"
    for content, sent in ((f"{KEY}\n\n", "01"), (KEY, "01"), ("", "00")):
        file.write_text(content)
        fake.sets.clear()
        assert run("set", fake.name, "private-key", str(file)) == 0
        assert fake.sets == [f"private_key={sent * 32}\n"]
    assert run("set", fake.name, "peer", KEY, "preshared-key", "/dev/null") == 0
    fake.sets.clear()
    for content in ("\n", KEY[:20], f" {KEY}", f"{KEY}x", f"{KEY}\n{KEY}\n"):
        file.write_text(content)
        assert run("set", fake.name, "private-key", str(file)) == 1
        told = capsys.readouterr().err
        assert str(file) in told
        assert KEY[:12] not in told
    assert run("set", fake.name, "private-key", str(tmp_path / "missing")) == 1
    assert fake.sets == []


# -- progress --------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_on_a_terminal_only_and_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "DELAY_SECONDS", 0)
    monkeypatch.setattr(progress_module, "INTERVAL_SECONDS", 0.001)
    for screen in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", screen)
        with Progress() as progress:
            progress.has_done("lines read", 5, 10)
            if screen.isatty():
                drawn = "5/10 lines read"
                wait_until(lambda: drawn in screen.getvalue(), what=drawn)  # noqa: B023 - used here
            progress.warn("careful")
        shown = screen.getvalue()
        if screen.isatty():
            assert "█" * 15 + "░" * 15 in shown
            assert "\r\x1b[KWarning: careful\n" in shown
            assert shown.endswith(("\r\x1b[K", "careful\n"))
        else:
            assert shown == "Warning: careful\n"


def test_a_short_run_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress() as progress:
        progress.waits("configuring")
    assert screen.getvalue() == ""
