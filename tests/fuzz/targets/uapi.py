"""The configuration protocol, from both sides, in chunks of any size."""

import errno
from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

from tests.fuzz.target import Input, Target, check_one_line
from tests.fuzz.targets.values_of import HEX, KEYS, check_no_key, lines, state_of, variants
from wgd.addresses import Endpoint, Prefix
from wgd.clock import VirtualClock
from wgd.configuration import DeviceChange, DeviceState, PeerState
from wgd.core.device import Device
from wgd.dataplane.portable import PortableDataPlane
from wgd.errors import ConfigurationError
from wgd.status import DeviceStatus, PeerStatus
from wgd.tun.memory import MemoryTun
from wgd.uapi.client_protocol import (
    Answer,
    AnswerError,
    GetAnswer,
    SetAnswer,
    Shown,
    StatusAnswer,
    set_request,
)
from wgd.uapi.control import control_request
from wgd.uapi.format import end_of_answer, get_answer, status_answer
from wgd.uapi.protocol import BadRequest, Close, Connection, ControlRequest, Request, SetRequest

_MAX_LINE_SIZE: Final = 65_536


def _zone(name: str) -> int:
    if name != "eth0":
        raise OSError(errno.ENODEV, "No such device")
    return 2


# -- the server ------------------------------------------------------------------------------------


def _requests(chunks: Iterable[bytes]) -> list[Request]:
    connection = Connection(_zone)
    requests: list[Request] = []
    for chunk in chunks:
        requests += connection.receive_data(chunk)
        assert len(connection._partial) <= _MAX_LINE_SIZE + 1
    requests += connection.receive_eof()
    assert connection.receive_data(b"get=1\n\n") == []
    return requests


def _run_server(data: bytes) -> None:
    chunks = Input(data).chunks()
    requests = _requests(chunks)
    assert _requests([b"".join(chunks)]) == requests
    assert len(requests) <= data.count(b"\n") + 2
    for place, request in enumerate(requests):
        match request:
            case SetRequest(change):
                _check_set(change)
            case ControlRequest(change):
                assert _requests([control_request(change)]) == [request]
            case BadRequest(number, reason):
                assert number in (errno.EINVAL, *(-each for each in _REFUSALS))
                check_one_line(reason)
                check_no_key(reason)
            case Close():
                assert place == len(requests) - 1


_REFUSALS: Final = (errno.EINVAL, errno.EPROTO, errno.EIO)


def _check_set(change: DeviceChange) -> None:
    """What the client would say for it is understood as the same."""
    (again,) = _requests([b"".join(set_request(change))])
    assert again == SetRequest(change)


_SET: Final = lines(
    b"set=1",
    b"private_key=" + HEX[0],
    b"listen_port=51820",
    b"fwmark=51820",
    b"replace_peers=true",
    b"public_key=" + HEX[1],
    b"update_only=true",
    b"preshared_key=" + HEX[2],
    b"endpoint=192.0.2.1:51820",
    b"persistent_keepalive_interval=25",
    b"allowed_ip=10.0.0.0/8",
    b"replace_allowed_ips=true",
    b"allowed_ip=fd00::/8",
    b"allowed_ip=-10.0.0.0/8",
    b"protocol_version=1",
    b"public_key=" + HEX[3],
    b"endpoint=[fe80::1%eth0]:51820",
    b"public_key=" + HEX[4],
    b"remove=true",
    b"",
)
_CONTROL: Final = lines(
    b"control=1",
    b"log_level=verbose",
    b"endpoint_host=" + HEX[1] + b" vpn.example.org:51820",
    b"",
)
_MESSAGES: Final = (_SET, _CONTROL, b"get=1\n\n", b"status=1\n\n", _SET + b"get=1\n\n" + _CONTROL)
_WORDS: Final = (
    *HEX,
    *(b"set=1\n", b"get=1\n\n", b"status=1\n\n", b"control=1\n", b"private_key=", b"public_key="),
    *(b"preshared_key=", b"endpoint=", b"allowed_ip=", b"persistent_keepalive_interval=", b"\n\n"),
    *(
        b"replace_peers=true\n",
        b"replace_allowed_ips=true\n",
        b"remove=true\n",
        b"fwmark=",
        b"\r\n",
    ),
    *(b"update_only=true\n", b"protocol_version=1\n", b"listen_port=", b"log_level=", b"::/0"),
    *(b"endpoint_host=", b"10.0.0.0/8", b"[2001:db8::1%1]:51820", b"192.0.2.1:51820", b"eth0"),
)

# -- a device behind it ----------------------------------------------------------------------------


def _run_configuration(data: bytes) -> None:
    """Every change that is taken makes the device what the slow way makes; others change nothing.

    What the device shows is understood by a client.
    """
    clock = VirtualClock()
    dataplane = PortableDataPlane(MemoryTun(), clock)
    try:
        _configure(Device(dataplane, Random(1).randbytes), clock, data)
    finally:
        dataplane.stop()


def _configure(device: Device, clock: VirtualClock, data: bytes) -> None:
    expected = DeviceState()
    for request in _requests(Input(data).chunks()):
        if isinstance(request, SetRequest):
            before = device.state()
            try:
                device.configure(request.change, clock.now())
            except ConfigurationError:
                assert device.state() == before
                continue
            expected = _after(expected, request.change)
            _compare(device.state(), expected)
    state = device.state()
    answer = _answered(GetAnswer(_zone), [b"".join(get_answer(state))])
    assert answer.errno == 0
    assert answer.shown().state == state
    assert [(each.endpoint, each.public_key) for each in answer.shown().state.peers] == [
        (each.endpoint, each.public_key) for each in state.peers
    ]


def _after(state: DeviceState, change: DeviceChange) -> DeviceState:
    """Return the state after a change, made by saying the state as a change first."""
    from wgd.service.recorder import _as_changes

    private_key = state.private_key if change.private_key is None else change.private_key
    listen_port = state.listen_port if change.listen_port is None else change.listen_port
    fwmark = state.fwmark if change.fwmark is None else change.fwmark
    before = () if change.replace_peers else [c for p in state.peers for c in _as_changes(p)]
    return state_of(DeviceChange(private_key, listen_port, fwmark, peers=(*before, *change.peers)))


def _compare(state: DeviceState, expected: DeviceState) -> None:
    """Our own key, clamped or not, is no peer's; the rest is as expected."""
    assert state.listen_port == expected.listen_port
    assert state.fwmark == expected.fwmark
    shown = {peer.public_key: peer for peer in state.peers}
    for peer in expected.peers:
        if peer.public_key in shown:
            assert shown.pop(peer.public_key).preshared_key == peer.preshared_key
    assert not shown
    owners = [prefix for peer in state.peers for prefix in peer.allowed_ips]
    assert len(owners) == len(set(owners)), "a prefix has two owners"


# -- the client ------------------------------------------------------------------------------------


def _answered(answer: Answer, chunks: Sequence[bytes]) -> "GetAnswer":
    for chunk in chunks:
        answer.receive_data(chunk)
    if not answer.is_complete:
        answer.receive_eof()
    assert isinstance(answer, GetAnswer)
    return answer


def _outcome(kind: int, chunks: Sequence[bytes]) -> object:
    """Return what a client makes of an answer, or the text of its error."""
    answer: Answer = (GetAnswer(_zone), SetAnswer(), StatusAnswer())[kind]
    try:
        for chunk in chunks:
            answer.receive_data(chunk)
            assert len(answer._partial) <= max(_MAX_LINE_SIZE, answer.max_line_size)
        if not answer.is_complete:
            answer.receive_eof()
        assert answer.is_complete
        if isinstance(answer, GetAnswer):
            return answer.errno, answer.shown()
        if isinstance(answer, StatusAnswer):
            return answer.errno, answer.status()
    except AnswerError as error:
        check_one_line(str(error))
        check_no_key(str(error))
        return str(error)
    return answer.errno


def _run_client(data: bytes) -> None:
    given = Input(data)
    kind = given.byte() % 3
    chunks = given.chunks()
    whole = b"".join(chunks)
    outcome = _outcome(kind, chunks)
    assert outcome == _outcome(kind, [whole])
    match outcome:
        case (0, Shown() as shown):
            state = shown.state
            again = _outcome(0, [b"".join(get_answer(state))])
            assert isinstance(again, tuple)
            assert again[1].state == state
        case (0, DeviceStatus() as status):
            assert _outcome(2, [b"".join(status_answer(status))]) == (0, status)


_STATE: Final = DeviceState(
    KEYS[0],
    51820,
    51820,
    (
        PeerState(
            KEYS[1],
            KEYS[2],
            Endpoint("192.0.2.1", 51820),
            1_700_000_000_123_456_789,
            12345,
            67890,
            25,
            (Prefix(b"\n\0\0\0", 8), Prefix(b"\xfd" + bytes(15), 8)),
        ),
        PeerState(KEYS[3], endpoint=Endpoint("fe80::1", 51820, 2)),
    ),
)
_STATUS: Final = DeviceStatus("wg0", peers=(PeerStatus("a", allowed_ips=("10.0.0.0/8",)),))


def _client_seeds() -> Iterable[bytes]:
    get = b"".join(get_answer(_STATE))
    bad = end_of_answer(-errno.EINVAL)
    status = b"".join(status_answer(_STATUS))
    answers = ((0, get), (0, get.removesuffix(b"\n")), (0, bad), (1, bad), (1, b"errno=0\n\n"))
    for kind, answer in (*answers, (2, status), (0, b"own_public_key=" + HEX[0] + b"\n" + get)):
        for variant in variants(answer):
            yield bytes([kind]) + variant


_ANSWER_WORDS: Final = (
    *_WORDS,
    *(b"errno=0\n\n", b"errno=-22", b"last_handshake_time_sec=", b"last_handshake_time_nsec="),
    *(b"tx_bytes=", b"rx_bytes=", b"own_public_key=", b"status={", b'"peers": [{', b"0" * 60),
    *(b"18446744073709551615", b"9223372036854775807", b'"latency": {"counts": ['),
)

TARGETS: Final = (
    Target(
        "uapi_server",
        _run_server,
        ("wgd.uapi.protocol", "wgd.uapi.set_body", "wgd.uapi.grammar", "wgd.uapi.control"),
        lambda: (each for message in _MESSAGES for each in variants(message)),
        _WORDS,
    ),
    Target(
        "configuration",
        _run_configuration,
        ("wgd.core.device", "wgd.uapi.set_body", "wgd.uapi.format", "wgd.dataplane.allowed_ips"),
        lambda: (each for message in _MESSAGES for each in variants(message + message)),
        _WORDS,
    ),
    Target(
        "uapi_client",
        _run_client,
        ("wgd.uapi.client_protocol", "wgd.uapi.format", "wgd.status"),
        _client_seeds,
        _ANSWER_WORDS,
    ),
)
