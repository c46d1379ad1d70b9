"""The client library against daemons that answer well, otherwise, wrongly, late or not at all."""

import asyncio
import base64
import errno
import logging
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wgd.addresses import Endpoint, Prefix
from wgd.diagnosis import Failure, FailureReason
from wgd.errors import ConfigurationError, WgdError
from wgd.status import json_parts
from wgd.uapi import client_protocol
from wgd.uapi.client import (
    AllowedIpChange,
    AsyncClient,
    Client,
    ControlChange,
    Device,
    DeviceChange,
    DeviceError,
    DeviceNotFoundError,
    DeviceStatus,
    OnError,
    Peer,
    PeerChange,
    PeerStatus,
    log_error,
)
from wgd.uapi.client_protocol import (
    MAX_ANSWER_SIZE,
    AnswerError,
    GetAnswer,
    SetAnswer,
    StatusAnswer,
    set_request,
)

PRIVATE = bytes([0x48]) + bytes(range(1, 31)) + bytes([0x5F])
PEER_KEY, OTHER_KEY, PRESHARED = bytes([0xAB]) * 32, bytes([0xCD]) * 32, bytes([0x11]) * 32
NONE = bytes(32)

FULL_ANSWER = f"""private_key={PRIVATE.hex()}
listen_port=51820
fwmark=42
public_key={"ab" * 32}
preshared_key={"11" * 32}
protocol_version=1
endpoint=[fe80::1%7]:4242
last_handshake_time_sec=1700000000
last_handshake_time_nsec=5
tx_bytes=18446744073709551615
rx_bytes=7
persistent_keepalive_interval=25
allowed_ip=10.0.0.0/8
allowed_ip=fd00::/64
public_key={"cd" * 32}
errno=0

""".encode()


# -- a daemon that does as it is told --------------------------------------------------------------


Conversation = Callable[[socket.socket], None]


class FakeDaemon:
    """Listens on DIRECTORY/NAME.sock and holds `conversation` with each client, in one thread."""

    def __init__(
        self, directory: Path, name: str, conversation: Conversation, *, backlog: int = 8
    ) -> None:
        self.path = directory / f"{name}.sock"
        self._conversation = conversation
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen(backlog)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "FakeDaemon":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self.listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(10)
                # A client may have gone, and one that only knocks says nothing.
                with suppress(ConnectionError):
                    if client.recv(1, socket.MSG_PEEK):
                        self._conversation(client)


def read_request(client: socket.socket) -> bytes:
    """Read to the blank line, or to the end of the stream."""
    request = b""
    while not request.endswith(b"\n\n") and (data := client.recv(65536)):
        request += data
    return request


def replies(answer: bytes, requests: list[bytes] | None = None) -> Conversation:
    """Take a request, answer, and wait until the client goes away."""

    def converse(client: socket.socket) -> None:
        request = read_request(client)
        if requests is not None:
            requests.append(request)
        client.sendall(answer)
        client.recv(1)

    return converse


def says(answer: bytes) -> Conversation:
    """Take a request, answer, and close."""

    def converse(client: socket.socket) -> None:
        read_request(client)
        client.sendall(answer)

    return converse


# -- both clients, as one --------------------------------------------------------------------------


class AnyClient(Protocol):
    def names(self) -> list[str]: ...
    def devices(self, *, on_error: OnError = ...) -> list[Device]: ...
    def device(self, name: str) -> Device: ...
    def configure(self, name: str, change: DeviceChange) -> None: ...
    def status(self, name: str) -> DeviceStatus: ...
    def control(self, name: str, change: ControlChange) -> None: ...


class Blocking:
    """An AsyncClient whose every call runs a loop of its own."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def names(self) -> list[str]:
        return self._runner.run(self._client.names())

    def devices(self, *, on_error: OnError = log_error) -> list[Device]:
        return self._runner.run(self._client.devices(on_error=on_error))

    def device(self, name: str) -> Device:
        return self._runner.run(self._client.device(name))

    def configure(self, name: str, change: DeviceChange) -> None:
        self._runner.run(self._client.configure(name, change))

    def status(self, name: str) -> DeviceStatus:
        return self._runner.run(self._client.status(name))

    def control(self, name: str, change: ControlChange) -> None:
        self._runner.run(self._client.control(name, change))


MakeClient = Callable[[float], AnyClient]


@pytest.fixture(params=["blocking", "asyncio", "uvloop"])
def make_client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeClient]:
    """A client with a timeout in seconds that looks into the test's directory."""
    with ExitStack() as stack:

        def make(timeout_seconds: float) -> AnyClient:
            if request.param == "blocking":
                return Client(directory=tmp_path, timeout_seconds=timeout_seconds, environment={})
            factory = uvloop.new_event_loop if request.param == "uvloop" else None
            runner = stack.enter_context(asyncio.Runner(loop_factory=factory))
            client = AsyncClient(
                directory=tmp_path, timeout_seconds=timeout_seconds, environment={}
            )
            return Blocking(client, runner)

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> AnyClient:
    return make_client(10.0)


# -- what is asked and shown -----------------------------------------------------------------------


def test_a_device_as_wireguard_go_shows_it(client: AnyClient, tmp_path: Path) -> None:
    requests: list[bytes] = []
    with FakeDaemon(tmp_path, "wg0", replies(FULL_ANSWER, requests)) as daemon:
        device = client.device("wg0")
    assert requests == [b"get=1\n\n"]
    assert device == Device(
        name="wg0",
        path=daemon.path,
        private_key=PRIVATE,
        public_key=X25519PrivateKey.from_private_bytes(PRIVATE).public_key().public_bytes_raw(),
        listen_port=51820,
        fwmark=42,
        peers=(
            Peer(
                PEER_KEY,
                preshared_key=PRESHARED,
                endpoint=Endpoint("fe80::1", 4242, 7),
                last_handshake_ns=1_700_000_000_000_000_005,
                sent_bytes=18446744073709551615,
                received_bytes=7,
                persistent_keepalive_seconds=25,
                allowed_ips=(Prefix(b"\x0a\0\0\0", 8), Prefix(b"\xfd" + bytes(15), 64)),
            ),
            Peer(OTHER_KEY),
        ),
    )


@pytest.mark.parametrize("end", [b"errno=0\n\n", b"errno=0\n", b"errno=0", b"errno=0\n\nrest"])
def test_an_answer_may_end_with_the_connection(
    client: AnyClient, tmp_path: Path, end: bytes
) -> None:
    with FakeDaemon(tmp_path, "wg0", says(b"listen_port=9\n" + end)):
        assert client.device("wg0").listen_port == 9


def test_boringtun_shows_its_public_key_and_no_private_one(
    client: AnyClient, tmp_path: Path
) -> None:
    answer = (
        f"own_public_key={'ef' * 32}\nlisten_port=1\npublic_key={'ab' * 32}\n"
        "endpoint=192.0.2.1:5\nallowed_ip=10.0.0.1/32\n"
        "last_handshake_time_sec=3\nlast_handshake_time_nsec=0\nrx_bytes=1\ntx_bytes=2\nerrno=0\n\n"
    )
    with FakeDaemon(tmp_path, "wg0", says(answer.encode())):
        device = client.device("wg0")
    assert (device.public_key, device.private_key) == (bytes([0xEF]) * 32, NONE)
    peer = device.peers[0]
    assert (peer.received_bytes, peer.sent_bytes) == (1, 2)
    assert (peer.preshared_key, peer.persistent_keepalive_seconds) == (NONE, 0)


def test_no_private_key_means_no_public_key(client: AnyClient, tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, "wg0", says(b"errno=0\n\n")):
        device = client.device("wg0")
    assert (device.private_key, device.public_key, device.peers) == (NONE, NONE, ())


def test_an_answer_of_many_reads_and_single_bytes(client: AnyClient, tmp_path: Path) -> None:
    peers = b"".join(b"public_key=%064x\nallowed_ip=10.0.0.0/8\n" % n for n in range(5000))

    def converse(daemon: socket.socket) -> None:
        read_request(daemon)
        for byte in FULL_ANSWER[:200]:
            daemon.sendall(bytes([byte]))
        daemon.sendall(FULL_ANSWER[200:].replace(b"errno=0\n\n", peers + b"errno=0\n\n"))

    with FakeDaemon(tmp_path, "wg0", converse):
        device = client.device("wg0")
    assert len(device.peers) == 5002
    assert int.from_bytes(device.peers[-1].public_key, "big") == 4999


def test_every_setting_goes_out_in_wgctrls_order(client: AnyClient, tmp_path: Path) -> None:
    requests: list[bytes] = []
    change = DeviceChange(
        private_key=PRIVATE,
        listen_port=0,
        fwmark=4294967295,
        replace_peers=True,
        peers=(
            PeerChange(
                PEER_KEY,
                update_only=True,
                preshared_key=NONE,
                endpoint=Endpoint("abcd:23::33", 51820, 2),
                persistent_keepalive_seconds=0,
                replace_allowed_ips=True,
                allowed_ips=(
                    AllowedIpChange(Prefix(b"\x0a\1\0\0", 16)),
                    AllowedIpChange(Prefix(bytes(16), 0), remove=True),
                ),
            ),
            PeerChange(OTHER_KEY, remove=True, update_only=True, persistent_keepalive_seconds=5),
        ),
    )
    with FakeDaemon(tmp_path, "wg0", replies(b"errno=0\n\n", requests)):
        client.configure("wg0", change)
    expected = (
        f"set=1\nprivate_key={PRIVATE.hex()}\nlisten_port=0\nfwmark=4294967295\n"
        f"replace_peers=true\npublic_key={'ab' * 32}\nupdate_only=true\n"
        f"preshared_key={'00' * 32}\nendpoint=[abcd:23::33%2]:51820\n"
        "persistent_keepalive_interval=0\nreplace_allowed_ips=true\nallowed_ip=10.1.0.0/16\n"
        f"allowed_ip=-::/0\npublic_key={'cd' * 32}\nremove=true\n\n"
    )
    assert requests == [expected.encode()]


def test_what_is_not_changed_is_not_sent() -> None:
    assert b"".join(set_request(DeviceChange())) == b"set=1\n\n"
    change = DeviceChange(peers=(PeerChange(PEER_KEY),))
    assert b"".join(set_request(change)) == b"set=1\npublic_key=" + b"ab" * 32 + b"\n\n"


@pytest.mark.parametrize(
    "change",
    [
        DeviceChange(private_key=b"short"),
        DeviceChange(listen_port=65536),
        DeviceChange(listen_port=-1),
        DeviceChange(fwmark=4294967296),
        DeviceChange(peers=(PeerChange(b""),)),
        DeviceChange(peers=(PeerChange(PEER_KEY, preshared_key=bytes(33)),)),
        DeviceChange(peers=(PeerChange(PEER_KEY, persistent_keepalive_seconds=65536),)),
        DeviceChange(peers=(PeerChange(PEER_KEY, endpoint=Endpoint("example.org", 1)),)),
        DeviceChange(peers=(PeerChange(PEER_KEY, endpoint=Endpoint("10.0.0.1", 65536)),)),
        DeviceChange(peers=(PeerChange(PEER_KEY, endpoint=Endpoint("fe80::1%eth0", 1)),)),
        DeviceChange(peers=(PeerChange(PEER_KEY, endpoint=Endpoint("::1]:1\nremove=true\n#", 1)),)),
        DeviceChange(
            peers=(PeerChange(PEER_KEY, allowed_ips=(AllowedIpChange(Prefix(bytes(4), 33)),)),)
        ),
        DeviceChange(
            peers=(PeerChange(PEER_KEY, allowed_ips=(AllowedIpChange(Prefix(bytes(5), 8)),)),)
        ),
    ],
)
def test_a_value_that_no_daemon_would_take_is_never_sent(
    change: DeviceChange, tmp_path: Path
) -> None:
    requests: list[bytes] = []
    with (
        FakeDaemon(tmp_path, "wg0", replies(b"errno=0\n\n", requests)),
        pytest.raises(ConfigurationError, match="must be") as caught,
    ):
        Client(directory=tmp_path, environment={}).configure("wg0", change)
    assert caught.value.errno == errno.EINVAL
    assert requests == []


# -- status and control, of wgd only ---------------------------------------------------------------


def test_a_status_of_many_peers(client: AnyClient, tmp_path: Path) -> None:
    peers = tuple(PeerStatus(f"key{n}", allowed_ips=("10.0.0.1/32",)) for n in range(3000))
    status = DeviceStatus("wg0", version="1", drops={"no_route": 1}, peers=peers)
    requests: list[bytes] = []
    answer = f"status={''.join(json_parts(status))}\nerrno=0\n\n".encode()
    assert len(answer) > client_protocol.MAX_LINE_SIZE
    with FakeDaemon(tmp_path, "wg0", replies(answer, requests)):
        assert client.status("wg0") == status
    assert requests == [b"status=1\n\n"]


def test_a_control_as_it_goes_out(client: AnyClient, tmp_path: Path) -> None:
    requests: list[bytes] = []
    change = ControlChange("verbose", ((PEER_KEY, "vpn.example.org:51820"),))
    with FakeDaemon(tmp_path, "wg0", replies(b"errno=0\n\n", requests)):
        client.control("wg0", change)
    expected = f"control=1\nlog_level=verbose\nendpoint_host={'ab' * 32} vpn.example.org:51820\n\n"
    assert requests == [expected.encode()]


def test_a_bad_control_is_never_sent(client: AnyClient, tmp_path: Path) -> None:
    requests: list[bytes] = []
    with (
        FakeDaemon(tmp_path, "wg0", replies(b"errno=0\n\n", requests)),
        pytest.raises(ConfigurationError, match="log_level must be one of"),
    ):
        client.control("wg0", ControlChange("loud"))
    assert requests == []


@pytest.mark.parametrize("answer", [b"", b"errno=5\n\n", b"errno=-5\n\n"])
def test_another_daemon_is_not_a_wgd(client: AnyClient, tmp_path: Path, answer: bytes) -> None:
    """wireguard-go and gotatun close the connection, boringtun says EIO."""
    with FakeDaemon(tmp_path, "wg0", says(answer)):
        for call in (lambda: client.status("wg0"), lambda: client.control("wg0", ControlChange())):
            with pytest.raises(DeviceError, match=r"^wg0 \(.*\) is not a wgd") as caught:
                call()
            assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOENT, "no peer with"), (errno.EOPNOTSUPP, "does not offer")]
)
def test_a_wgd_that_refuses_says_why(
    client: AnyClient, tmp_path: Path, number: int, words: str
) -> None:
    with FakeDaemon(tmp_path, "wg0", says(b"errno=%d\n\n" % -number)):
        for call in (lambda: client.status("wg0"), lambda: client.control("wg0", ControlChange())):
            with pytest.raises(DeviceError, match=words) as caught:
                call()
            assert caught.value.errno == number


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"status=\n",
        b"status={}\n",
        b"status=[]\n",
        b"status={\n",
        b"status=\xff\n",
        b"status=" + b"[" * 100_000 + b"\n",
        b'status={"interface": ' + b"1" * 5000 + b"}\n",
        b'status={"interface": "wg0", "listen_port": NaN}\n',
    ],
)
def test_a_status_that_is_none(client: AnyClient, tmp_path: Path, line: bytes) -> None:
    with (
        FakeDaemon(tmp_path, "wg0", says(line + b"errno=0\n\n")),
        pytest.raises(DeviceError, match="status is not understood") as caught,
    ):
        client.status("wg0")
    assert caught.value.errno == errno.EPROTO
    assert len(str(caught.value)) < 500


def test_an_endless_status_is_given_up() -> None:
    answer = StatusAnswer()
    block = b"status=" + b" " * 2**20
    with pytest.raises(AnswerError, match="longer than"):
        for _ in range(2 * MAX_ANSWER_SIZE // len(block)):
            answer.receive_data(block)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "name"), [(22, "EINVAL"), (errno.EADDRINUSE, "EADDRINUSE"), (4095, "4095")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_either_sign_of_errno_is_a_refusal(
    client: AnyClient, tmp_path: Path, sign: int, number: int, name: str
) -> None:
    with FakeDaemon(tmp_path, "wg0", says(b"errno=%d\n\n" % (sign * number))):
        for call in (lambda: client.device("wg0"), lambda: client.configure("wg0", DeviceChange())):
            with pytest.raises(DeviceError, match=rf"^wg0 \(.*/wg0\.sock\) refused: .*{name}") as e:
                call()
            assert e.value.errno == number


def test_a_daemon_that_refuses_early_is_heard_although_it_read_little(
    client: AnyClient, tmp_path: Path
) -> None:
    def converse(daemon: socket.socket) -> None:
        daemon.recv(10)
        daemon.sendall(b"errno=-22\n\n")

    peers = tuple(PeerChange(n.to_bytes(32, "big")) for n in range(50_000))
    with (
        FakeDaemon(tmp_path, "wg0", converse),
        pytest.raises(DeviceError, match="refused: EINVAL") as caught,
    ):
        client.configure("wg0", DeviceChange(peers=peers))
    assert caught.value.errno == errno.EINVAL


def test_early_success_is_no_success(client: AnyClient, tmp_path: Path) -> None:
    def converse(daemon: socket.socket) -> None:
        daemon.recv(10)
        daemon.sendall(b"errno=0\n\n")

    peers = tuple(PeerChange(n.to_bytes(32, "big")) for n in range(50_000))
    with (
        FakeDaemon(tmp_path, "wg0", converse),
        pytest.raises(DeviceError, match="before it had the whole request"),
    ):
        client.configure("wg0", DeviceChange(peers=peers))


@pytest.mark.parametrize("is_read", [True, False])
def test_gotatun_closes_without_an_answer(client: AnyClient, tmp_path: Path, is_read: bool) -> None:
    """Not reading everything makes the client see a reset instead of an end."""

    def converse(daemon: socket.socket) -> None:
        if is_read:
            read_request(daemon)
        else:
            daemon.recv(1)

    with (
        FakeDaemon(tmp_path, "wg0", converse),
        pytest.raises(DeviceError, match="closed without an answer") as caught,
    ):
        client.configure("wg0", DeviceChange(listen_port=1))
    assert caught.value.errno == errno.EPROTO


def test_lines_beside_the_errno_of_a_set_are_skipped(client: AnyClient, tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, "wg0", says(b"note\nwarning=x\nerrno=0\n\n")):
        client.configure("wg0", DeviceChange())


# -- answers that are wrong ------------------------------------------------------------------------


def get(data: bytes) -> GetAnswer:
    answer = GetAnswer(lambda _name: 5)
    answer.receive_data(data)
    answer.receive_eof()
    return answer


PEER_LINE = b"public_key=" + b"ab" * 32 + b"\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"private_key=00",
        b"private_key=" + b"0x" + b"00" * 31,
        b"own_public_key=x",
        b"listen_port=65536",
        b"listen_port=+1",
        b"listen_port=\xd9\xa1",
        b"fwmark=0x2a",
        b"no equals sign",
        b"public_key=",
        PEER_LINE + b"preshared_key=(none)",
        PEER_LINE + b"protocol_version=2",
        PEER_LINE + b"endpoint=example.org:1",
        PEER_LINE + b"endpoint=fe80::1:1",
        PEER_LINE + b"last_handshake_time_sec=-1",
        PEER_LINE + b"last_handshake_time_nsec=1000000000",
        PEER_LINE + b"tx_bytes=18446744073709551616",
        PEER_LINE + b"rx_bytes= 1",
        PEER_LINE + b"persistent_keepalive_interval=off",
        PEER_LINE + b"allowed_ip=10.9.8.7",
        PEER_LINE + b"allowed_ip=-10.0.0.0/8",
        b"errno=",
        b"errno=+1",
        b"errno=-",
        b"errno=0x1",
        b"errno=99999999999",
        b"\n",
        b"listen_port=1\r",
    ],
)
def test_a_malformed_answer_is_refused_with_the_line_and_without_the_value(lines: bytes) -> None:
    with pytest.raises(AnswerError) as caught:
        get(lines + b"\nerrno=0\n\n")
    assert "answer" in str(caught.value)
    value = lines.rsplit(b"=")[-1].decode("latin-1")
    assert len(value) < 5 or value not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"listen_port=1\n", PEER_LINE, b"\n", b"errno=0\nlisten_p"])
def test_an_answer_that_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(AnswerError):
        get(data)


@pytest.mark.parametrize(
    "lines",
    [
        b"new_setting=1",
        b"protocol_version=1",  # gotatun's place for it
        b"=",
        b"a=b=c",
        b"allowed_ip=nonsense",  # before the first peer it is no key
        PEER_LINE + b"advanced_security=true",
        PEER_LINE + b"listen_port=nonsense",
    ],
)
def test_keys_that_are_not_known_are_skipped(lines: bytes) -> None:
    assert get(lines + b"\nerrno=0\n\n").errno == 0


def test_a_zone_is_resolved_here_and_left_out_where_it_cannot_be() -> None:
    data = PEER_LINE + b"endpoint=[fe80::1%en0]:7\nerrno=0\n\n"
    assert get(data).shown().state.peers[0].endpoint == Endpoint("fe80::1", 7, 5)

    def not_here(_name: str) -> int:
        raise OSError

    answer = GetAnswer(not_here)
    answer.receive_data(data)
    assert answer.shown().state.peers[0].endpoint == Endpoint("fe80::1", 7, 0)


def test_where_an_answer_is_cut_into_chunks_makes_no_difference() -> None:
    whole = get(FULL_ANSWER).shown()
    for cut in range(1, len(FULL_ANSWER)):
        answer = GetAnswer(lambda _name: 5)
        answer.receive_data(FULL_ANSWER[:cut])
        assert not answer.is_complete
        answer.receive_data(FULL_ANSWER[cut:])
        assert answer.is_complete
        assert answer.shown() == whole


def test_a_long_line_and_a_long_answer_are_refused() -> None:
    answer = SetAnswer()
    answer.receive_data(b"x" * 65536)
    with pytest.raises(AnswerError, match="65536"):
        answer.receive_data(b"x")
    answer, chunk = SetAnswer(), b"x" * 65535 + b"\n"
    for _ in range(4096):
        answer.receive_data(chunk)
    with pytest.raises(AnswerError, match="268435456"):
        answer.receive_data(b"e")


def test_an_endless_answer_ends(
    client: AnyClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_protocol, "MAX_ANSWER_SIZE", 1_000_000)

    def converse(daemon: socket.socket) -> None:
        read_request(daemon)
        while True:
            daemon.sendall(b"a=b\n" * 10000)

    with (
        FakeDaemon(tmp_path, "wg0", converse),
        pytest.raises(DeviceError, match="longer than 1000000 bytes") as caught,
    ):
        client.device("wg0")
    assert caught.value.errno == errno.EPROTO


# -- time ------------------------------------------------------------------------------------------


@contextmanager
def out_of_time() -> Iterator[None]:
    with pytest.raises(DeviceError, match=r"wg0 \(.*\) did not answer within 0\.3 s") as caught:
        yield
    assert caught.value.errno == errno.ETIMEDOUT


def test_a_daemon_that_never_answers(make_client: MakeClient, tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, "wg0", replies(b"")), out_of_time():
        make_client(0.3).device("wg0")


def test_a_daemon_that_never_reads(make_client: MakeClient, tmp_path: Path) -> None:
    gone = threading.Event()

    def converse(_client: socket.socket) -> None:
        gone.wait(10)

    peers = tuple(PeerChange(n.to_bytes(32, "big")) for n in range(50_000))
    with FakeDaemon(tmp_path, "wg0", converse):
        with out_of_time():
            make_client(0.3).configure("wg0", DeviceChange(peers=peers))
        gone.set()


def test_the_timeout_is_for_the_whole_answer(make_client: MakeClient, tmp_path: Path) -> None:
    gone = threading.Event()

    def drip(daemon: socket.socket) -> None:
        read_request(daemon)
        while not gone.wait(0.05):  # each byte well within the timeout
            daemon.sendall(b"a=b\n")

    with FakeDaemon(tmp_path, "wg0", drip):
        with out_of_time():
            make_client(0.3).device("wg0")
        gone.set()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog refuses")
def test_a_daemon_with_no_room_is_waited_for(make_client: MakeClient, tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path, "wg0", says(b"errno=0\n\n"), backlog=0)
    with ExitStack() as stack:
        while True:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(str(daemon.path))
            except BlockingIOError:
                break
            waiting.sendall(b"get=1\n\n")
        with out_of_time():
            make_client(0.3).device("wg0")
        with daemon:
            assert make_client(10).device("wg0").name == "wg0"


# -- several devices, and none ---------------------------------------------------------------------


def here(devices: list[Device], directory: Path) -> list[str]:
    """Return the names, without devices of this machine that have nothing to do with the test."""
    return sorted(device.name for device in devices if device.path.parent == directory)


def dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))


def test_a_device_that_fails_does_not_hide_the_others(
    client: AnyClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        FakeDaemon(tmp_path, "wg0", says(b"errno=0\n\n")),
        FakeDaemon(tmp_path, "wg1", says(b"errno=5\n\n")),
        FakeDaemon(tmp_path, "wg2", says(b"nonsense\n\n")),
        FakeDaemon(tmp_path, "wg3", says(b"errno=0\n\n")),
        caplog.at_level(logging.WARNING),
    ):
        assert {"wg0", "wg1", "wg2", "wg3"} <= set(client.names())
        assert here(client.devices(), tmp_path) == ["wg0", "wg3"]
        assert "name=wg1" in caplog.text
        assert "name=wg2" in caplog.text
        caplog.clear()
        failed = {}
        devices = client.devices(on_error=lambda found, error: failed.update({found.path: error}))
        assert here(devices, tmp_path) == ["wg0", "wg3"]
        assert failed[tmp_path / "wg1.sock"].errno == 5
        assert failed[tmp_path / "wg2.sock"].errno == errno.EPROTO
        assert "name=wg1" not in caplog.text


def test_a_name_that_is_not_there(client: AnyClient, tmp_path: Path) -> None:
    for call in (
        lambda: client.device("absent0"),
        lambda: client.configure("absent0", DeviceChange()),
    ):
        with pytest.raises(DeviceNotFoundError, match=rf"'absent0' in {tmp_path}") as caught:
            call()
        assert caught.value.errno == errno.ENODEV


def test_a_dead_socket_is_reported_and_left_alone(client: AnyClient, tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    dead_socket(path)
    with pytest.raises(DeviceNotFoundError, match=rf"^wg0 \({path}\) refuses connections"):
        client.device("wg0")
    assert here(client.devices(), tmp_path) == []
    assert path.is_socket()


def test_a_path_longer_than_an_address(tmp_path: Path) -> None:
    """The directory is renamed to be long after the bind, as no bind would take it."""
    (tmp_path / "short").mkdir()
    with FakeDaemon(tmp_path / "short", "wg0", says(b"listen_port=3\nerrno=0\n\n")):
        long = tmp_path / ("d" * 120)
        (tmp_path / "short").rename(long)
        device = Client(directory=long, environment={}).device("wg0")
        assert (device.listen_port, device.path) == (3, long / "wg0.sock")


@pytest.mark.parametrize(
    ("failure", "number", "text"),
    [
        (PermissionError(13, "Permission denied"), errno.EACCES, "denied; run this as root"),
        (
            PermissionError(1, "Not permitted"),
            errno.EPERM,
            "Not permitted; run this as root; on mac",
        ),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Refused"),
            errno.ECONNREFUSED,
            "nobody listens",
        ),
        (FileNotFoundError(2, "No such file"), errno.ENODEV, "has just gone: its daemon has ended"),
        (WgdError("socket path /x is 200 bytes long"), errno.ENAMETOOLONG, "/x is 200 bytes long"),
        (OSError("AF_UNIX path too long"), errno.EIO, "AF_UNIX path too long"),
    ],
)
def test_what_cannot_be_reached_names_the_device_and_the_cure(
    client: AnyClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    number: int,
    text: str,
) -> None:
    def refuse(*_: object) -> None:
        raise failure

    with FakeDaemon(tmp_path, "wg0", says(b"errno=0\n\n")) as daemon:
        monkeypatch.setattr("wgd.uapi.client.connect_address", refuse)
        with pytest.raises(DeviceError, match=text) as caught:
            client.device("wg0")
    assert caught.value.errno == number
    assert f"wg0 ({daemon.path})" in str(caught.value)


# -- secrets, cancelling, documentation ------------------------------------------------------------


def test_no_key_in_any_repr() -> None:
    shown = get(FULL_ANSWER).shown()
    device = Device("wg0", Path("/x"), PRIVATE, OTHER_KEY, 1, 0, tuple(shown.state.peers))
    for key in (PRIVATE, PEER_KEY, OTHER_KEY, PRESHARED):
        for form in (key.hex(), repr(key)[2:-1], base64.b64encode(key).decode()):
            assert form not in repr(device) + repr(shown)


def test_no_key_in_any_error(client: AnyClient, tmp_path: Path) -> None:
    answer = FULL_ANSWER.replace(b"preshared_key=", b"preshared_key=0").replace(b"errno=0", b"")
    with (
        FakeDaemon(tmp_path, "wg0", says(answer)),
        pytest.raises(DeviceError, match="line 5 of the answer: preshared_key must") as caught,
    ):
        client.device("wg0")
    for key in (PRIVATE, PEER_KEY, PRESHARED):
        assert key.hex()[:20] not in str(caught.value)


def test_cancelling_closes_the_connection(tmp_path: Path) -> None:
    has_asked, is_closed = threading.Event(), threading.Event()

    def converse(daemon: socket.socket) -> None:
        read_request(daemon)
        has_asked.set()
        assert daemon.recv(1) == b""
        is_closed.set()

    async def scenario() -> None:
        task = asyncio.create_task(AsyncClient(directory=tmp_path, environment={}).device("wg0"))
        assert await asyncio.to_thread(has_asked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(is_closed.wait, 10)

    with FakeDaemon(tmp_path, "wg0", converse):
        asyncio.run(scenario())


DOCUMENT = Path(__file__).parents[2] / "docs/client.md"


def test_the_examples_of_the_documentation_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the container of a sandboxed app, which the examples must find by themselves."""
    data = tmp_path / "Library/Containers/com.wireguard.macos.network-extension/Data"
    data.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    requests: list[bytes] = []
    failure = Failure(FailureReason.NOT_ANSWERED, 3, 1)
    status = DeviceStatus("wg0", peers=(PeerStatus("key", failures=(failure,)),))
    answers = {
        b"get=1\n\n": FULL_ANSWER,
        b"status=1\n\n": f"status={''.join(json_parts(status))}\nerrno=0\n\n".encode(),
    }

    def converse(daemon: socket.socket) -> None:
        request = read_request(daemon)
        requests.append(request)
        daemon.sendall(answers.get(request, b"errno=0\n\n"))

    monkeypatch.chdir(data)  # the path may be longer than bind takes
    examples = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(examples) == 4
    variables: dict[str, Any] = {}
    with FakeDaemon(Path(), "wg0", converse):
        for example in examples:
            exec(compile(example, str(DOCUMENT), "exec"), variables)
    peer = f"set=1\npublic_key={'ab' * 32}\n"
    endpoint = "endpoint=192.0.2.7:51820\npersistent_keepalive_interval=25\n\n"
    host = f"endpoint_host={'ab' * 32} vpn.example.org:51820\n\n"
    assert [request.decode() for request in requests if request not in answers] == [
        f"{peer}update_only=true\n{endpoint}",
        "set=1\nlisten_port=40000\n\n",
        f"{peer}allowed_ip=10.1.0.0/16\n\n",
        f"control=1\nlog_level=info\n{host}",
    ]
    printed = capsys.readouterr().out
    assert "wg0: port 51820, 2 peers, " in printed
    assert "  3 times: a handshake initiation was not answered" in printed
    assert "wg0" in {device.name for device in variables["devices"]}
