"""What is printed: paragraphs, JSON, the guide; and the words on the command line."""

import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from tests.daemon.fake_uapi import FakeUapi
from tests.doctor.clinic import NOW, healthy, healthy_device, healthy_peer, silent_peer, with_peer
from wgd.ctl.doctor.ask import file_peers
from wgd.ctl.doctor.catalog import CATALOG
from wgd.ctl.doctor.facts import Facts, Unseen
from wgd.ctl.doctor.guide import guide
from wgd.ctl.doctor.render import MAX_OF_A_KIND, Report, as_object, text
from wgd.ctl.doctor.rules import examine
from wgd.ctl.doctor.rules.common import ago
from wgd.ctl.errors import ConfigFileError
from wgd.ctl.main import main
from wgd.ctl.statuses import WatchError, watched_status

GUIDE = Path(__file__).parents[2] / "docs/troubleshooting.md"
KEY = "cGVlciBrZXkgcGVlciBrZXkgcGVlciBrZXkgcGVlciE="


def shown(facts: Facts, *, width: int = 80, is_coloured: bool = False) -> str:
    return text(Report(facts, examine(facts)), width=width, is_coloured=is_coloured)


# -- text and JSON ---------------------------------------------------------------------------------


def test_a_healthy_device_in_words() -> None:
    assert shown(healthy()) == (
        "wg0: everything looks fine.\n\n"
        "Looked at: its daemon's own account; port 51820, MTU 1420; 1 peer, 1 with a\n"
        "session, the latest handshake 20 seconds ago.\n"
    )


def test_a_sick_device_in_words() -> None:
    facts = replace(with_peer(**silent_peer()), unseen=(Unseen("the firewall", "no nft"),))
    lines = shown(facts).splitlines()
    assert lines[0] == "wg0: 1 problem."
    assert lines[2].startswith("PROBLEM: Peer cGVl…lciE (192.0.2.2:51820) does not answer:")
    assert lines[-1] == "Not looked at: the firewall (no nft)."
    # A key is never cut in two.
    assert any(KEY in line for line in lines)


def test_lines_fit_the_terminal() -> None:
    facts = with_peer(**silent_peer())
    for width in (60, 80, 100, 300):
        longest = max(map(len, shown(facts, width=width).splitlines()))
        assert longest <= min(width, 100)


def test_colours() -> None:
    assert "\x1b[31m" in shown(with_peer(**silent_peer()), is_coloured=True)
    assert "\x1b" not in shown(with_peer(**silent_peer()))


def test_notes_alone_are_no_trouble() -> None:
    facts = healthy(healthy_device(offloads=()))
    assert shown(facts).startswith("wg0: everything looks fine (1 note).\n")
    assert as_object(Report(facts, examine(facts)))["result"] == "fine"


def test_many_of_a_kind_are_counted() -> None:
    peers = tuple(healthy_peer(public_key=f"{n:043d}=", allowed_ips=()) for n in range(20))
    facts = healthy(healthy_device(peers=peers), paths={})
    assert shown(facts).count("has no allowed IPs") == MAX_OF_A_KIND
    assert f"and {20 - MAX_OF_A_KIND} more of [no-allowed-ips]" in shown(facts)
    assert len(as_object(Report(facts, examine(facts)))["findings"]) == 20


def test_json_has_it_all() -> None:
    facts = replace(with_peer(**silent_peer()), unseen=(Unseen("the firewall", "no nft"),))
    document = json.loads(json.dumps(as_object(Report(facts, examine(facts)))))
    assert (document["interface"], document["result"]) == ("wg0", "problems")
    (finding,) = document["findings"]
    assert (finding["id"], finding["severity"]) == ("endpoint-silent", "problem")
    assert finding["peer"] == KEY
    assert document["not_looked_at"] == [{"what": "the firewall", "why": "no nft"}]


# -- the guide -------------------------------------------------------------------------------------


def test_the_guide_is_what_the_catalog_makes() -> None:
    assert GUIDE.read_text() == guide(), "run: python -m wgd.ctl.doctor.guide > " + GUIDE.name


def test_every_finding_has_its_section() -> None:
    assert re.findall(r"^## (.+)$", GUIDE.read_text(), re.MULTILINE) == list(CATALOG)
    assert "{" not in guide()


# -- the command line ------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUapi]:
    """Another daemon, whose interface does not exist here."""
    for name, value in (("WGD_UAPI_DIR", str(tmp_path)), ("HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    with FakeUapi(f"dx{os.getpid()}", directory=tmp_path) as server:
        yield server


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(("doctor", *words))
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_an_old_daemon_is_examined_without_its_status(
    fake: FakeUapi, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.state = f"private_key={'01' * 32}\nlisten_port=5\n"
    assert run(fake.name, "--json", "--no-probe") == 2
    document = json.loads(capsys.readouterr().out)[fake.name]
    assert document["source"] == "get"
    assert "no-peers" in [finding["id"] for finding in document["findings"]]
    assert "no wgd" in document["not_looked_at"][0]["why"]
    assert "AQEBAQEB" not in json.dumps(document)  # the private key


def test_what_cannot_be_examined_is_an_error(
    fake: FakeUapi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("nosuch0") == 1
    assert "nosuch0" in capsys.readouterr().err
    assert run(fake.name, "--config", "/nowhere/wg.conf", "--no-probe") == 1
    assert "/nowhere/wg.conf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--foo"], "--foo"), (["wg0", "wg1"], "wg0 wg1"), (["--config"], "name of a file")],
)
def test_wrong_words(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 1
    shown = capsys.readouterr().err
    assert complaint in shown
    assert "Usage: wgdctl doctor" in shown


def test_of_a_file_only_peers_are_read() -> None:
    one = (
        b"[Interface]\nPrivateKey = what?\nAddress = 10.0.0.1/24\nPostUp = echo [Peer]\n"
        b"[peer]\nEndpoint = a.b:5\npublickey=" + KEY.encode() + b"\nAllowedIPs = 10.0.0.9/24\n"
        b"allowedips = fd00::1\n"
    )
    (peer,) = file_peers(one)
    assert (peer.public_key, peer.allowed_ips) == (KEY, ("10.0.0.0/24", "fd00::1/128"))
    with pytest.raises(ConfigFileError):
        list(file_peers(b"[Peer]\nAllowedIPs = 10.0.0.9/24\n"))


# -- the socket for watching -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{nons",
        b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"peers": [5]}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
    ],
)
def test_a_socket_that_answers_nonsense(answer: bytes, tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(5)

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        server = Thread(target=serve)
        server.start()
        with pytest.raises(WatchError, match=r"wg0\.sock"):
            watched_status(path)
        server.join(5)


def test_time_is_told_in_words() -> None:
    seconds = {0: "just now", 5: "5 seconds", 150: "2 minutes", 8000: "2 hours", 200_000: "2 days"}
    for count, words in seconds.items():
        assert ago(count * 10**9).startswith(words)
    assert ago(-NOW) == "just now"
