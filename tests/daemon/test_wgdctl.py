"""wgdctl beside the real `wg`: the same bytes for the same device, the same device afterwards.

Most devices are fakes, so that `wg` and wgdctl see the same moment of any history. They live in a
mount namespace in which the system directory is theirs alone.
"""

import base64
import contextlib
import ctypes
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.daemon.fake_uapi import FakeUapi
from tests.testbed import Daemon, Testbed, require
from tests.testbed.namespaces import run
from tests.testbed.uapi import SOCKET_DIRECTORY
from wgd.ctl.main import run as run_wgdctl
from wgd.errors import WgdError

pytestmark = pytest.mark.netns

CLONE_NEWNS = 0x0002_0000
WGDCTL = (sys.executable, "-m", "wgd.ctl")
FIELDS = (
    *("public-key", "private-key", "listen-port", "fwmark", "peers", "preshared-keys"),
    *("endpoints", "allowed-ips", "latest-handshakes", "transfer", "persistent-keepalive", "dump"),
)
NO_VARIABLES: Mapping[str, str] = {}

Output = tuple[int, str]


def b64(number: int) -> str:
    return base64.b64encode(bytes([number] * 32)).decode()


def wg(*words: str, variables: Mapping[str, str] = NO_VARIABLES) -> Output:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WG_")}
    completed = subprocess.run(
        ["wg", *words],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        env={**environment, **variables},
        timeout=60,
    )
    return completed.returncode, completed.stdout.decode()


def wgdctl(*words: str, variables: Mapping[str, str] = NO_VARIABLES) -> Output:
    """Run wgdctl in this process: starting Python takes longer than a second may last."""
    environment = {"HOME": "/nonexistent", "WG_COLOR_MODE": "never", **variables}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            status = run_wgdctl(words, environment)
        except WgdError:
            status = 1
    return status, out.getvalue()


def assert_same(*words: str, variables: Mapping[str, str] = NO_VARIABLES) -> str:
    """Run both within the same second; return what they printed."""
    for _ in range(50):
        before = wg(*words, variables=variables)
        ours = wgdctl(*words, variables=variables)
        if before == wg(*words, variables=variables):
            assert ours == before
            return ours[1]
    raise AssertionError(f"wg {words} never printed the same twice")


# -- every way to show a device --------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone() -> Iterator[ThreadPoolExecutor]:
    """A thread whose system directory is an empty one of its own, also for what it starts."""
    require()
    SOCKET_DIRECTORY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wgdctl-") as directory:

        def isolate() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWNS) != 0:  # of this thread only
                raise OSError(ctypes.get_errno(), "unshare")
            run("mount", "--make-rprivate", "/")
            run("mount", "--bind", directory, SOCKET_DIRECTORY)

        with ThreadPoolExecutor(1) as executor:
            executor.submit(isolate).result(30)
            yield executor


@pytest.fixture
def fake(alone: ThreadPoolExecutor) -> Iterator[FakeUapi]:
    server = FakeUapi(f"fx{os.getpid()}")
    alone.submit(server.__enter__).result(10)
    yield server
    alone.submit(server.__exit__, None, None, None).result(20)


def peer(number: int, *lines: str, sent: int = 0, received: int = 0, handshake: int = 0) -> str:
    """A peer as wireguard-go shows it; `lines` are its endpoint, keepalive and allowed IPs."""
    secret = next((line for line in lines if line.startswith("preshared_key=")), None)
    others = "".join(f"{line}\n" for line in lines if line != secret)
    return (
        f"public_key={bytes([number] * 32).hex()}\n{secret or 'preshared_key=' + '0' * 64}\n"
        f"protocol_version=1\nlast_handshake_time_sec={handshake}\n"
        f"last_handshake_time_nsec={1 if handshake else 0}\ntx_bytes={sent}\nrx_bytes={received}\n"
        f"{others}"
    )


NOW = int(time.time())
DAY = 86_400
SECRET = f"preshared_key={'09' * 32}"
KEY = f"private_key={'58' * 32}\n"

STATES: Mapping[str, str] = {
    "nothing": "",
    "a key": KEY,
    "a key that is not clamped": f"private_key={'ff' * 32}\n",
    "a port": "listen_port=51820\n",
    "a mark": f"{KEY}fwmark=51820\n",
    "the largest mark": f"{KEY}listen_port=65535\nfwmark=4294967295\n",
    "a bare peer": peer(1),
    "a preshared key": KEY + peer(1, SECRET),
    "keepalive off": peer(1, "persistent_keepalive_interval=0"),
    "keepalive 1": peer(1, "persistent_keepalive_interval=1"),
    "keepalive 25": peer(1, "persistent_keepalive_interval=25"),
    "keepalive 60": peer(1, "persistent_keepalive_interval=60"),
    "the longest keepalive": peer(1, "persistent_keepalive_interval=65535"),
    "an IPv4 endpoint": peer(1, "endpoint=192.0.2.1:51820"),
    "an IPv6 endpoint": peer(1, "endpoint=[2001:db8::1]:51820"),
    "a zone by name": peer(1, "endpoint=[fe80::1%lo]:7"),
    "a zone by number": peer(1, "endpoint=[fe80::1%1]:7"),
    "a zone that is not there": peer(1, "endpoint=[fe80::1%4711]:7"),
    "a zone of a global address": peer(1, "endpoint=[2001:db8::1%2]:7"),
    "an IPv4-mapped endpoint": peer(1, "endpoint=[::ffff:192.0.2.1]:7"),
    "one allowed IP": peer(1, "allowed_ip=10.0.0.0/8"),
    "IPv6 allowed IPs": peer(1, "allowed_ip=fd00::/8", "allowed_ip=::/0", "allowed_ip=::1/128"),
    "IPv4-mapped allowed IPs": peer(
        1, "allowed_ip=::ffff:192.0.2.1/128", "allowed_ip=::192.0.2.1/128", "allowed_ip=::/96"
    ),
    "many allowed IPs": peer(1, *(f"allowed_ip=10.{i}.0.0/16" for i in range(256))),
    "handshake now": peer(1, handshake=NOW + 2),
    "handshake long ago": peer(1, handshake=NOW - 400 * DAY - 2 * 3600 - 61),
    "handshake at the epoch": peer(1, handshake=1),
    "handshake in the future": peer(1, handshake=NOW + 1000 * DAY),
    "only nanoseconds": peer(1).replace("time_nsec=0", "time_nsec=5"),
    "bytes": peer(1, sent=1, received=1023),
    "sent only": peer(1, sent=1024),
    "received only": peer(1, received=1024**2 - 1),
    "mebibytes": peer(1, sent=1024**2, received=1536 * 1024),
    "gibibytes": peer(1, sent=1024**3 - 1, received=1024**3 + 5 * 1024**2),
    "tebibytes": peer(1, sent=1024**4 - 1, received=1024**4),
    "the largest counters": peer(1, sent=2**64 - 1, received=2**63 + 12345),
    "peers by their handshakes": KEY
    + peer(1)
    + peer(2, handshake=NOW - 5000)
    + peer(3, handshake=NOW - 100)
    + peer(4)
    + peer(5, handshake=NOW - DAY)
    + peer(6, handshake=NOW - 100)
    + peer(7, SECRET, "endpoint=192.0.2.1:5", "allowed_ip=10.0.0.0/8", handshake=NOW - 7),
    "many peers": KEY
    + "".join(
        peer(
            number,
            f"endpoint=192.0.2.{number}:{number}",
            f"persistent_keepalive_interval={number}",
            f"allowed_ip=10.{number}.0.0/16",
            f"allowed_ip=fd00:{number}::/32",
            handshake=NOW - number * 1000,
            sent=number**7,
            received=number**5,
        )
        for number in range(1, 251)
    ),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_every_form_is_the_same_byte_for_byte(
    state: str, fake: FakeUapi, alone: ThreadPoolExecutor
) -> None:
    fake.state = state

    def compare() -> None:
        for words in ((), ("show",), ("show", "all"), ("show", fake.name), ("showconf", fake.name)):
            assert assert_same(*words)
        for field in FIELDS:
            assert_same("show", fake.name, field)
            assert_same("show", "all", field)
        assert_same("show", "interfaces")
        for hide_keys in ("never", "always", "nonsense"):
            for colour_mode in ("always", "never"):
                variables = {"WG_HIDE_KEYS": hide_keys, "WG_COLOR_MODE": colour_mode}
                assert_same("show", fake.name, variables=variables)

    alone.submit(compare).result(120)


def test_a_second_that_has_just_begun(fake: FakeUapi, alone: ThreadPoolExecutor) -> None:
    """Now, and one second ago: set anew for each try, because they do not last."""

    def compare(age_seconds: int, expected: str) -> None:
        for _ in range(50):
            fake.state = peer(1, handshake=int(time.time()) - age_seconds)
            before, ours = wg("show", fake.name), wgdctl("show", fake.name)
            if f"latest handshake: {expected}\n" in before[1] and before == wg("show", fake.name):
                assert ours == before
                return
        raise AssertionError(f"wg never said {expected}")

    for age_seconds, expected in ((0, "Now"), (1, "1 second ago"), (60, "1 minute ago")):
        alone.submit(compare, age_seconds, expected).result(60)


def test_several_devices(fake: FakeUapi, alone: ThreadPoolExecutor) -> None:
    fake.state = STATES["peers by their handshakes"]

    def blocks(text: str) -> list[str]:
        return sorted(re.split(r"\n+(?=interface: )", text.rstrip("\n")))

    def parts(text: str) -> list[str]:
        # One for each name: `all endpoints` runs on after a device without peers.
        return sorted(re.split(rf"(?=f[xyz]{os.getpid()}\t)", text))

    def compare() -> None:
        names = [f"fy{os.getpid()}", f"fz{os.getpid()}"]
        with FakeUapi(names[0], STATES["a key"]), FakeUapi(names[1], STATES["bytes"]) as broken:
            for field in FIELDS:
                theirs, ours = (show("show", "all", field)[1] for show in (wg, wgdctl))
                assert parts(ours) == parts(theirs)
            theirs, ours = wg("show", "interfaces")[1], wgdctl("show", "interfaces")[1]
            assert sorted(ours.split()) == sorted(theirs.split()) == sorted([fake.name, *names])
            assert re.fullmatch(r"\S+ \S+ \S+\n", ours)
            for _ in range(50):
                theirs, ours, again = wg()[1], wgdctl()[1], wg()[1]
                if theirs == again:
                    break
            assert blocks(ours) == blocks(theirs)
            assert ours.count("\n\ninterface: ") == theirs.count("\n\ninterface: ") == 2
            broken.get_errno = 13
            # The others are shown, and it is no failure.
            assert wgdctl("show", "all", "peers")[0] == wg("show", "all", "peers")[0] == 0
            assert wgdctl("show", broken.name)[0] == wg("show", broken.name)[0] == 1

    alone.submit(compare).result(60)


def test_no_device_and_a_device_that_fails(fake: FakeUapi, alone: ThreadPoolExecutor) -> None:
    fake.get_errno = 13

    def compare() -> None:
        shows: tuple[tuple[str, ...], ...] = (
            *((), ("show",), ("show", "all", "dump"), ("show", fake.name)),
            *(("show", fake.name, "dump"), ("showconf", fake.name)),
        )
        for words in shows:
            assert assert_same(*words) == ""
        for errno in (22, -22):
            fake.set_errno = errno
            assert wgdctl("set", fake.name, "fwmark", "5") == wg("set", fake.name, "fwmark", "5")

    alone.submit(compare).result(60)


def test_no_device_at_all(alone: ThreadPoolExecutor) -> None:
    def compare() -> None:
        empty: tuple[tuple[str, ...], ...] = ((), ("show",), ("show", "all", "dump"))
        for words in (*empty, ("show", "interfaces")):
            assert assert_same(*words) == ""
        failing: tuple[tuple[str, ...], ...] = (
            *(("show", "nope"), ("show", "nope", "dump"), ("showconf", "nope")),
            *(("set", "nope", "fwmark", "5"), ("setconf", "nope", "/dev/null")),
            *(("syncconf", "nope", "/dev/null"), ("show", "a/b"), ("show", "..")),
        )
        for words in failing:
            assert wgdctl(*words) == wg(*words) == (1, "")

    alone.submit(compare).result(60)


def on_a_terminal(argv: Sequence[str], variables: Mapping[str, str]) -> str:
    controller, terminal = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WG_")}
    with open(controller, "rb", buffering=0) as output:  # noqa: PTH123 - a descriptor
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            env={**environment, **variables},
        )
        os.close(terminal)
        text = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while chunk := output.read(65536):
                text += chunk
        assert process.wait(30) == 0
    return text.decode()


def test_colours_on_a_terminal(fake: FakeUapi, alone: ThreadPoolExecutor) -> None:
    # In the future, so that the text does not change while Python starts.
    fake.state = f"{KEY}listen_port=5\nfwmark=6\n" + peer(
        *(1, SECRET, "endpoint=[fe80::1%lo]:7", "allowed_ip=10.0.0.0/8", "allowed_ip=::/0"),
        "persistent_keepalive_interval=3661",
        sent=2048,
        handshake=NOW + 1000 * DAY,
    )

    def compare() -> None:
        for mode in (None, "auto", "nonsense", "always", "never"):
            variables = {} if mode is None else {"WG_COLOR_MODE": mode}
            theirs = on_a_terminal(["wg", "show", fake.name], variables)
            ours = on_a_terminal([*WGDCTL, "show", fake.name], variables)
            assert ours == theirs
            assert ("\x1b[" in ours) == (mode != "never")

    alone.submit(compare).result(120)


def test_the_public_key_and_a_world_readable_file(tmp_path: Path) -> None:
    require()
    for umask, is_warned in ((0o022, True), (0o027, False), (0o077, False)):
        for action in ("genkey", "genpsk"):
            for program in (("wg",), WGDCTL):
                path = tmp_path / f"{action}{umask}{len(program)}"
                with path.open("wb") as out:
                    os.fchmod(out.fileno(), 0o666 & ~umask)
                    done = subprocess.run(
                        [*program, action], stdout=out, stderr=subprocess.PIPE, check=True
                    )
                assert bool(done.stderr) == is_warned
                assert len(path.read_bytes()) == 45
    private_key = path.read_text()
    theirs, ours = (
        subprocess.run(
            [*p, "pubkey"], input=private_key, capture_output=True, text=True, check=True
        )
        for p in (("wg",), WGDCTL)
    )
    assert ours.stdout == theirs.stdout


def test_a_pipe_that_is_not_read_to_its_end(fake: FakeUapi, alone: ThreadPoolExecutor) -> None:
    fake.state = STATES["many peers"] * 5

    def compare() -> None:
        words = " ".join((*WGDCTL, "show", fake.name, "dump"))
        done = subprocess.run(
            ["bash", "-c", f"{words} | head -n 1 >/dev/null; echo ${{PIPESTATUS[0]}}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert done.stdout == "141\n"
        assert done.stderr == ""

    alone.submit(compare).result(60)


# -- the same requests -----------------------------------------------------------------------------


def test_what_is_sent_is_what_wg_sends(
    fake: FakeUapi, alone: ThreadPoolExecutor, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text(b64(5) + "\n")
    one, two = ("peer", b64(1)), ("peer", b64(2))
    sets: list[tuple[str, ...]] = [
        *(("listen-port", "5"), ("listen-port", "domain"), ("fwmark", "0xca6c"), ("fwmark", "OFF")),
        *(("private-key", "/dev/null"), ("private-key", str(key)), one, (*one, "remove")),
        (*one, "remove", "allowed-ips", "10.0.0.0/8", *two, "remove"),
        (*one, "preshared-key", "/dev/null", *two, "preshared-key", str(key)),
        (*one, "endpoint", "192.0.2.1:5"),
        (*one, "endpoint", "[2001:db8::1]:5"),
        (*one, "endpoint", "localhost:5"),
        (*one, "endpoint", "127.1:domain"),
        (*one, "persistent-keepalive", "off"),
        (*one, "persistent-keepalive", "65535"),
        (*one, "allowed-ips", ""),
        (*one, "allowed-ips", " 10.0.0.0/8, fd00::/8 ,192.0.2.1"),
        (*one, "allowed-ips", "10.0.0.0/8", "allowed-ips", "11.0.0.0/8"),
        (*one, "persistent-keepalive", "5", "allowed-ips", "::/0", "endpoint", "192.0.2.1:5"),
        ("listen-port", "5", "listen-port", "6", "fwmark", "7", *one, *one),
        # refused
        *(("listen-port", "off"), ("fwmark", "0XA"), ("fwmark", "4294967296"), ("foo",), ("peer",)),
        *((*one, "endpoint", "192.0.2.1"), (*one, "endpoint", "[::1]x5"), (*one, "endpoint", ":5")),
        *((*one, "allowed-ips", ","), (*one, "allowed-ips", "10/8"), (*one, "fwmark", "5")),
        *((*one, "persistent-keepalive", "65536"), (*one, "allowed-ips", "10.0.0.0/33")),
        *(("private-key", str(tmp_path / "missing")), ("peer", b64(1)[:-2] + "F=")),
    ]
    interface = f"[Interface]\nPrivateKey = {b64(3)}\n"
    section = f"{interface}[Peer]\nPublicKey = {b64(1)}\n"
    files = [
        *("", "\n# nothing\n", "[Interface]", interface, section, f"[Peer]\nPublicKey={b64(2)}"),
        f"{section}AllowedIPs = 1.0.0.0/8 , 2.0.0.0/8\n a l l o w e d i p s=3.0.0.0/8 # x\n",
        f"{section}Endpoint = 192.0.2.1:5\nPersistentKeepalive = 25\nPresharedKey = {b64(9)}\n",
        f"{section}[Interface]\r\nlistenport=5\r\nfwmark=off\r\n[PEER]\r\npublickey={b64(2)}\r\n",
        f"{section}AllowedIPs = 1.0.0.0/8\n{section}AllowedIPs = 2.0.0.0/8\n",
        f"{section}PresharedKey = {b64(0)}\nPersistentKeepalive = off\n",
        # refused
        *("foo\n", "[Foo]\n", f"PrivateKey = {b64(3)}\n", f"{section}AllowedIPs =\n"),
        *(f"{section}foo = bar\n", f"{interface}[Peer]\n", f"{section}PresharedKey = abc\n"),
        *(f"{interface}Address = 10.0.0.1\n", f"{section}AllowedIPs = ,\n"),
    ]

    def send(program: Callable[..., Output], *words: str) -> tuple[Output, list[str]]:
        fake.sets.clear()
        variables = {"WG_ENDPOINT_RESOLUTION_RETRIES": "0"}
        return program(*words, variables=variables), list(fake.sets)

    def compare() -> None:
        for words in sets:
            ours = send(wgdctl, "set", fake.name, *words)
            assert ours == send(wg, "set", fake.name, *words), words
        file = tmp_path / "wg.conf"
        for text in files:
            file.write_text(text)
            for action in ("setconf", "addconf"):
                ours = send(wgdctl, action, fake.name, str(file))
                # An empty addconf: wg asks for nothing, and so do we.
                assert ours == send(wg, action, fake.name, str(file)), text

    alone.submit(compare).result(120)


# -- real daemons ----------------------------------------------------------------------------------


@pytest.fixture(params=["wgd", "wireguard-go"])
def daemons(request: pytest.FixtureRequest, testbed: Testbed) -> tuple[Daemon, Daemon]:
    """Two daemons of one kind, each in a namespace of its own: for `wg` and for wgdctl."""
    command = None
    if request.param == "wireguard-go":
        require("wireguard-go")
        command = ["wireguard-go"]
    one, two = (testbed.daemon(testbed.namespace(), command=command) for _ in range(2))
    for daemon in (one, two):
        daemon.up()
    return one, two


def dump(daemon: Daemon) -> list[str]:
    """What `wg` says of a daemon, with `port` for a port that is not ours."""
    assert_same_but_for_order(daemon)
    first, *peers = wg("show", daemon.interface, "dump")[1].splitlines()
    fields = first.split("\t")
    fields[2] = "port" if fields[2] != "51999" else fields[2]
    return ["\t".join(fields), *sorted(peers)]


def assert_same_but_for_order(daemon: Daemon) -> None:
    """`wg` and wgdctl show the daemon alike; wireguard-go shuffles its peers with each get."""
    for words in (*((field,) for field in FIELDS), ()):
        theirs, ours = (show("show", daemon.interface, *words) for show in (wg, wgdctl))
        assert ours[0] == theirs[0] == 0
        separator = "\n" if words else "\n\n"
        assert sorted(ours[1].rstrip("\n").split(separator)) == sorted(
            theirs[1].rstrip("\n").split(separator)
        )


def test_round_trips_on_real_daemons(daemons: tuple[Daemon, Daemon], testbed: Testbed) -> None:
    keys = [testbed.keys() for _ in range(4)]
    own, a, b, c = keys
    key, secret = testbed.file(own.private + "\n"), testbed.file(testbed.preshared_key())
    interface = f"[Interface]\nPrivateKey = {own.private}\nListenPort = 51999\n"
    first = (
        f"{interface}FwMark = 0x10\n"
        f"[Peer]\nPublicKey = {a.public}\nAllowedIPs = 10.1.0.0/16, fd01::/32\n"
        f"Endpoint = 192.0.2.1:5\nPersistentKeepalive = 25\n"
        f"[Peer]\nPublicKey = {b.public}\nAllowedIPs = 10.2.0.0/16\n"
    )
    second = (
        f"{interface}[Peer]\nPublicKey = {b.public}\nAllowedIPs = 10.1.0.0/16, 10.2.0.0/16\n"
        f"Endpoint = [2001:db8::1]:7\n[Peer]\nPublicKey = {c.public}\nAllowedIPs = fd01::/32\n"
    )
    steps: list[tuple[str, ...]] = [
        ("set", "private-key", str(key), "listen-port", "51999", "fwmark", "0xca6c"),
        ("set", "peer", a.public, "preshared-key", str(secret), "allowed-ips", "10.0.0.0/8,::/0"),
        ("set", "peer", a.public, "endpoint", "192.0.2.9:9", "persistent-keepalive", "25"),
        ("set", "peer", b.public, "allowed-ips", "10.0.0.0/8", "peer", c.public),
        ("set", "peer", a.public, "preshared-key", "/dev/null", "persistent-keepalive", "off"),
        ("set", "peer", c.public, "remove", "peer", b.public, "allowed-ips", ""),
        ("set", "fwmark", "off", "peer", c.public, "endpoint", "[2001:db8::1]:7"),
        ("setconf", first),
        ("syncconf", first),
        ("syncconf", second),
        ("addconf", f"[Peer]\nPublicKey = {a.public}\nAllowedIPs = 10.9.0.0/16\n"),
        ("setconf", second),
        ("set", "private-key", "/dev/null"),
        ("setconf", f"[Interface]\nPrivateKey = {own.private}\n"),
    ]
    theirs, ours = daemons
    for action, *rest in steps:
        words = rest if action == "set" else [str(testbed.file(rest[0]))]
        assert wg(action, theirs.interface, *words) == (0, "")
        assert wgdctl(action, ours.interface, *words) == (0, ""), (action, *rest)
        assert dump(ours) == dump(theirs), (action, *rest)
    # What showconf writes, setconf reads.
    file = testbed.file(second)
    assert wgdctl("setconf", ours.interface, str(file))[0] == 0
    before = dump(ours)
    copy = testbed.file(wgdctl("showconf", ours.interface)[1])
    assert wgdctl("setconf", theirs.interface, str(copy))[0] == 0
    assert dump(theirs) == before


def test_what_newer_wg_does(daemons: tuple[Daemon, Daemon], testbed: Testbed) -> None:
    """Allowed IPs one by one, and a syncconf that takes away what the file no longer has."""
    daemon = daemons[0]
    name, public = daemon.interface, testbed.keys().public
    secret = testbed.file(testbed.preshared_key())

    def allowed_ips() -> list[str]:
        fields = wg("show", name, "allowed-ips")[1].split()
        return sorted(fields[1:])

    peer_words = ("peer", public, "preshared-key", str(secret), "persistent-keepalive", "25")
    assert wgdctl("set", name, *peer_words, "allowed-ips", "10.1.0.0/16")[0] == 0
    assert wgdctl("set", name, "peer", public, "allowed-ips", "+10.2.0.0/16")[0] == 0
    assert allowed_ips() == ["10.1.0.0/16", "10.2.0.0/16"]
    file = testbed.file(f"[Peer]\nPublicKey = {public}\nAllowedIPs = 10.1.0.0/16\n")
    assert wgdctl("syncconf", name, str(file))[0] == 0
    assert allowed_ips() == ["10.1.0.0/16"]
    fields = wg("show", name, "dump")[1].splitlines()[1].split("\t")
    assert (fields[1], fields[7]) == ("(none)", "off")


def test_taking_an_allowed_ip_away(testbed: Testbed) -> None:
    daemon = testbed.daemon(testbed.namespace())  # an older wireguard-go does not know it
    public = testbed.keys().public
    words = ("set", daemon.interface, "peer", public, "allowed-ips")
    assert wgdctl(*words, "10.1.0.0/16,10.2.0.0/16")[0] == 0
    assert wgdctl(*words, "-10.1.0.0/16")[0] == 0
    assert wg("show", daemon.interface, "allowed-ips")[1] == f"{public}\t10.2.0.0/16\n"
