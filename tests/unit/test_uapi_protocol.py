"""Proves the framing, the meaning and the errors of the configuration protocol."""

import errno
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.addresses import Endpoint
from wgd.configuration import AllowedIpChange, ControlChange, DeviceChange, PeerChange
from wgd.uapi import grammar
from wgd.uapi.protocol import (
    BadRequest,
    Close,
    Connection,
    ControlRequest,
    GetRequest,
    Request,
    SetRequest,
    StatusRequest,
)

KEY_A = "aa" * 32
KEY_B = "bb" * 32
SECRET = "5ec7e7" * 10 + "abcd"
KIB = 1024
MIB = 1024 * 1024


def resolve(name: str) -> int:
    if name != "eth0":
        raise OSError("no such interface")
    return 7


def connection() -> Connection:
    return Connection(resolve)


def requests(data: str | bytes) -> list[Request]:
    return connection().receive_data(data.encode() if isinstance(data, str) else data)


def change(*lines: str) -> DeviceChange:
    (request,) = requests("\n".join(["set=1", *lines, "", ""]))
    assert isinstance(request, SetRequest), request
    return request.change


def error(*lines: str) -> BadRequest:
    (request,) = requests("\n".join(["set=1", *lines, "", ""]))
    assert isinstance(request, BadRequest), request
    return request


def allowed(*values: str) -> tuple[AllowedIpChange, ...]:
    return tuple(grammar.allowed_ip(value.encode()) for value in values)


# -- framing ---------------------------------------------------------------------------------------


def test_get() -> None:
    assert requests("get=1\n\n") == [GetRequest()]


def test_nothing_is_emitted_before_the_blank_line() -> None:
    stream = connection()
    for data in (b"set", b"=1\nlisten_po", b"rt=1\n"):
        assert stream.receive_data(data) == []
    assert stream.receive_data(b"\n") == [SetRequest(DeviceChange(listen_port=1))]


def test_two_sets_and_a_get_in_one_segment() -> None:
    data = "set=1\nlisten_port=1\n\nset=1\nfwmark=2\n\nget=1\n\n"
    assert requests(data) == [
        SetRequest(DeviceChange(listen_port=1)),
        SetRequest(DeviceChange(fwmark=2)),
        GetRequest(),
    ]


def test_status_and_control_among_the_others() -> None:
    data = "status=1\n\nset=1\nfwmark=2\n\ncontrol=1\nlog_level=info\n\nget=1\n\nstatus=1\n\n"
    assert requests(data) == [
        StatusRequest(),
        SetRequest(DeviceChange(fwmark=2)),
        ControlRequest(ControlChange("info")),
        GetRequest(),
        StatusRequest(),
    ]


def test_byte_by_byte() -> None:
    data = f"set=1\nprivate_key={KEY_A}\npublic_key={KEY_B}\nallowed_ip=10.0.0.0/8\n\nget=1\n\n"
    stream = connection()
    got = [request for byte in data.encode() for request in stream.receive_data(bytes([byte]))]
    assert got == requests(data)
    assert len(got) == 2


@pytest.mark.parametrize(
    "first",
    [
        *["", "get=2", "set=2", "SET=1", "set=1\r", "get=1\r", " get=1", "get", "errno=0"],
        *["status=2", "status", "status=1\r", "control=2", "control=1 ", "Control=1"],
    ],
)
def test_unknown_first_line_closes_without_an_answer(first: str) -> None:
    stream = connection()
    assert stream.receive_data(f"{first}\n\nget=1\n\n".encode()) == [Close()]
    assert stream.receive_data(b"get=1\n\n") == []
    assert stream.receive_eof() == []


def test_blank_first_line_after_a_transaction_closes() -> None:
    assert requests("get=1\n\n\n") == [GetRequest(), Close()]


def test_first_line_without_end_is_not_collected() -> None:
    stream = connection()
    got: list[Request] = []
    for _ in range(3):
        got += stream.receive_data(b"x" * 60 * KIB)
    assert got == [Close()]


@pytest.mark.parametrize("body", ["x", "public_key=1", "\r", " "])
@pytest.mark.parametrize("question", ["get=1", "status=1"])
def test_a_question_with_a_body_is_refused_with_a_positive_errno_and_drained(
    question: str, body: str
) -> None:
    end = "" if body == "\r" else "\n"
    refused, after = requests(f"{question}\n{body}\n{end}get=1\n\n")
    assert isinstance(refused, BadRequest)
    assert refused.errno == errno.EINVAL
    assert after == GetRequest()


def test_carriage_returns_in_a_set_body() -> None:
    data = b"set=1\nlisten_port=1\r\nfwmark=2\r\n\r\nget=1\n\n"
    expected = [SetRequest(DeviceChange(listen_port=1, fwmark=2)), GetRequest()]
    assert requests(data) == expected
    (refused,) = requests(b"set=1\nlisten_port=1\r\r\n\n")
    assert isinstance(refused, BadRequest)


@pytest.mark.parametrize(
    "data",
    [
        *[b"", b"get=1", b"set=1", b"get=1\n", b"get=1\n\n", b"xyz"],
        *[b"status=1", b"status=1\n", b"status=1\n\n", b"control=1"],
    ],
)
def test_eof_elsewhere_is_quiet(data: bytes) -> None:
    stream = connection()
    stream.receive_data(data)
    assert stream.receive_eof() == []


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_eof_ends_a_set_with_its_last_line(end: bytes) -> None:
    stream = connection()
    assert stream.receive_data(b"set=1\nlisten_port=1\nfwmark=9" + end) == []
    assert stream.receive_eof() == [SetRequest(DeviceChange(listen_port=1, fwmark=9))]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_eof_ends_a_control_with_its_last_line(end: bytes) -> None:
    stream = connection()
    assert stream.receive_data(b"control=1\nlog_level=silent" + end) == []
    assert stream.receive_eof() == [ControlRequest(ControlChange("silent"))]


def test_eof_right_after_set() -> None:
    stream = connection()
    assert stream.receive_data(b"set=1\n") == []
    assert stream.receive_eof() == [SetRequest(DeviceChange())]


def test_eof_reports_what_already_failed() -> None:
    for data in (b"set=1\nfwmark=x", b"set=1\nfwmark=x\nlisten_port=1"):
        stream = connection()
        assert stream.receive_data(data) == []
        (refused,) = stream.receive_eof()
        assert isinstance(refused, BadRequest)
        assert refused.errno == -errno.EINVAL


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1 * KIB, 50 * KIB, 300 * KIB])
def test_long_line_is_eio_after_draining_and_is_not_stored(chunk: int) -> None:
    stream = connection()
    data = b"set=1\nfwmark=" + b"1" * 200 * KIB + b"\nlisten_port=1\n\nget=1\n\n"
    got: list[Request] = []
    for start in range(0, len(data), chunk):
        got += stream.receive_data(data[start : start + chunk])
        assert len(stream._partial) <= 64 * KIB + 1
    refused, after = got
    assert isinstance(refused, BadRequest)
    assert refused.errno == -errno.EIO
    assert after == GetRequest()


def test_line_of_64_kib_is_judged_by_its_content() -> None:
    for size, number in ((64 * KIB, errno.EINVAL), (64 * KIB + 1, errno.EIO)):
        line = "listen_port=".ljust(size, "1")
        assert error(line).errno == -number


def test_long_message_is_eio_and_the_end() -> None:
    stream = connection()
    assert stream.receive_data(b"set=1\n") == []
    block = (b"fwmark=" + b"0" * 64 + b"\n") * 10_000
    got: list[Request] = []
    sent = 0
    while not got:
        got += stream.receive_data(block)
        sent += len(block)
    assert 64 * MIB < sent < 66 * MIB
    refused, close = got
    assert isinstance(refused, BadRequest)
    assert refused.errno == -errno.EIO
    assert close == Close()
    assert stream.receive_data(b"\n\nget=1\n\n") == []


def test_long_control_is_eio_and_the_end() -> None:
    stream = connection()
    assert stream.receive_data(b"control=1\n") == []
    block = b"log_level=info\n" * 70_000
    got: list[Request] = []
    while not got:
        got += stream.receive_data(block)
    refused, close = got
    assert isinstance(refused, BadRequest)
    assert refused.errno == -errno.EIO
    assert close == Close()


def test_endless_line_ends_the_connection_too() -> None:
    stream = connection()
    stream.receive_data(b"set=1\nno equals sign\n")
    got: list[Request] = []
    for _ in range(66):
        got += stream.receive_data(b"x" * MIB)
    refused, close = got
    assert isinstance(refused, BadRequest)
    assert refused.errno == -errno.EPROTO  # the first error
    assert close == Close()


def test_limits_are_per_message() -> None:
    stream = connection()
    message = b"set=1\n" + (b"x" * 60 * KIB + b"\n") * 700 + b"\n"
    for _ in range(3):
        (refused,) = stream.receive_data(message)
        assert isinstance(refused, BadRequest)
    assert stream.receive_data(b"get=1\n\n") == [GetRequest()]


# -- device lines ----------------------------------------------------------------------------------


def test_device_lines() -> None:
    assert change(
        f"private_key={KEY_A}", "listen_port=051820", "fwmark=4294967295", "replace_peers=true"
    ) == DeviceChange(b"\xaa" * 32, 51820, 4294967295, True)


def test_empty_set_changes_nothing() -> None:
    assert change() == DeviceChange()


def test_zero_keys_are_passed_on_and_differ_from_absent() -> None:
    assert change("private_key=" + "0" * 64).private_key == bytes(32)
    (peer,) = change(f"public_key={KEY_A}", "preshared_key=" + "0" * 64).peers
    assert peer.preshared_key == bytes(32)


def test_repeated_device_lines_last_one_wins() -> None:
    assert change("listen_port=1", "listen_port=2") == DeviceChange(listen_port=2)


@pytest.mark.parametrize("line", [f"private_key={KEY_A}", "listen_port=1", "fwmark=1"])
def test_device_lines_come_before_peers(line: str) -> None:
    assert error(f"public_key={KEY_A}", line).errno == -errno.EINVAL


# -- peer lines ------------------------------------------------------------------------------------


def test_peer_lines() -> None:
    assert change(
        f"public_key={KEY_A.upper()}",
        "update_only=true",
        f"preshared_key={KEY_B}",
        "endpoint=[fe80::1%eth0]:51820",
        "persistent_keepalive_interval=25",
        "replace_allowed_ips=true",
        "allowed_ip=10.1.2.3/8",
        "allowed_ip=-fd00::1/64",
        "protocol_version=1",
        f"public_key={KEY_B}",
        "remove=true",
    ) == DeviceChange(
        peers=(
            PeerChange(
                b"\xaa" * 32,
                update_only=True,
                preshared_key=b"\xbb" * 32,
                endpoint=Endpoint("fe80::1", 51820, 7),
                persistent_keepalive_seconds=25,
                replace_allowed_ips=True,
                allowed_ips=allowed("10.0.0.0/8", "-fd00::/64"),
            ),
            PeerChange(b"\xbb" * 32, remove=True),
        )
    )


def test_values_left_out_are_none() -> None:
    (peer,) = change(f"public_key={KEY_A}").peers
    assert (peer.preshared_key, peer.endpoint, peer.endpoint_host) == (None, None, None)
    assert peer.persistent_keepalive_seconds is None
    assert (peer.remove, peer.update_only, peer.replace_allowed_ips) == (False, False, False)
    assert peer.allowed_ips == ()


@pytest.mark.parametrize(
    "line",
    [
        f"preshared_key={KEY_A}",
        "endpoint=192.0.2.1:1",
        "persistent_keepalive_interval=1",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.0/8",
        "remove=true",
        "update_only=true",
        "protocol_version=1",
    ],
)
def test_peer_lines_need_a_peer(line: str) -> None:
    assert error(line).errno == -errno.EINVAL


def test_a_repeated_peer_is_changed_in_order() -> None:
    peers = change(
        f"public_key={KEY_A}",
        "allowed_ip=10.0.0.0/8",
        f"public_key={KEY_B}",
        "allowed_ip=10.0.0.0/8",
        f"public_key={KEY_A}",
        "remove=true",
    ).peers
    assert [(peer.public_key[0], peer.remove) for peer in peers] == [
        (0xAA, False),
        (0xBB, False),
        (0xAA, True),
    ]


def test_remove_wins_over_trailing_and_leading_lines() -> None:
    assert change(
        f"public_key={KEY_A}",
        "allowed_ip=10.0.0.0/8",
        "replace_allowed_ips=true",
        "remove=true",
        "allowed_ip=10.0.0.0/8",
        "endpoint=192.0.2.1:1",
    ).peers == (PeerChange(b"\xaa" * 32, remove=True),)


def test_lines_of_a_removed_peer_are_still_checked() -> None:
    assert error(f"public_key={KEY_A}", "remove=true", "endpoint=nowhere").errno == -errno.EINVAL


def test_replace_first_is_one_change_even_twice() -> None:
    (peer,) = change(
        f"public_key={KEY_A}",
        "replace_allowed_ips=true",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.0/8",
    ).peers
    assert peer.replace_allowed_ips
    assert peer.allowed_ips == allowed("10.0.0.0/8")


def test_replace_after_allowed_ips_keeps_the_order_of_lines() -> None:
    first, second, third = change(
        f"public_key={KEY_A}",
        f"preshared_key={KEY_B}",
        "allowed_ip=10.0.0.0/8",
        "replace_allowed_ips=true",
        "allowed_ip=11.0.0.0/8",
        "replace_allowed_ips=true",
        "allowed_ip=12.0.0.0/8",
        "update_only=true",
        "persistent_keepalive_interval=5",
    ).peers
    key = b"\xaa" * 32
    assert first == PeerChange(key, update_only=True, allowed_ips=allowed("10.0.0.0/8"))
    assert second == PeerChange(
        key, update_only=True, replace_allowed_ips=True, allowed_ips=allowed("11.0.0.0/8")
    )
    assert third == PeerChange(
        key,
        update_only=True,
        preshared_key=b"\xbb" * 32,
        persistent_keepalive_seconds=5,
        replace_allowed_ips=True,
        allowed_ips=allowed("12.0.0.0/8"),
    )


# -- errors ----------------------------------------------------------------------------------------

DEVICE_KEYS = ["private_key", "listen_port", "fwmark", "replace_peers"]
PEER_KEYS = [
    "public_key",
    "preshared_key",
    "endpoint",
    "persistent_keepalive_interval",
    "replace_allowed_ips",
    "allowed_ip",
    "remove",
    "update_only",
    "protocol_version",
]


@pytest.mark.parametrize("value", ["", " ", "x", "+1", "-1", "1 ", " true", "TRUE", "false", "1=1"])
@pytest.mark.parametrize("key", DEVICE_KEYS + PEER_KEYS)
def test_bad_values_are_einval(key: str, value: str) -> None:
    peer = [f"public_key={KEY_A}"] if key in PEER_KEYS else []
    assert error(*peer, f"{key}={value}").errno == -errno.EINVAL


@pytest.mark.parametrize("key", [*DEVICE_KEYS, *PEER_KEYS])
def test_keys_are_exact(key: str) -> None:
    for wrong in (key.upper(), f" {key}", f"{key} "):
        assert error(f"public_key={KEY_A}", f"{wrong}=true").errno == -errno.EINVAL


@pytest.mark.parametrize(
    "line", ["", "rx_bytes", "tx_bytes", "last_handshake_time_sec", "errno", "get", "set", "ré"]
)
def test_unknown_and_get_only_keys_are_einval(line: str) -> None:
    assert error(f"{line}=1").errno == -errno.EINVAL
    assert error(f"public_key={KEY_A}", f"{line}=1").errno == -errno.EINVAL


def test_line_without_equals_sign_is_eproto() -> None:
    assert error("listen_port").errno == -errno.EPROTO
    assert error(" ").errno == -errno.EPROTO


def test_first_error_wins() -> None:
    assert error("listen_port", "fwmark=x").errno == -errno.EPROTO
    assert error("fwmark=x", "listen_port").errno == -errno.EINVAL


def test_unresolved_zone_is_einval() -> None:
    assert error(f"public_key={KEY_A}", "endpoint=[fe80::1%eth9]:1").errno == -errno.EINVAL


def test_error_amid_5000_peers_is_drained() -> None:
    lines = ["set=1"]
    for number in range(5000):
        lines += [f"public_key={number:064x}", "allowed_ip=10.0.0.0/8"]
        if number == 2500:
            lines.append("endpoint=example.com:51820")
    data = "\n".join([*lines, "", "get=1", "", ""])
    refused, after = requests(data)
    assert isinstance(refused, BadRequest)
    assert refused.errno == -errno.EINVAL
    assert after == GetRequest()


def test_nothing_of_a_failed_message_leaks_into_the_next() -> None:
    _, after = requests(f"set=1\nfwmark=1\npublic_key={KEY_A}\nx=\n\nset=1\nlisten_port=5\n\n")
    assert after == SetRequest(DeviceChange(listen_port=5))


def test_reason_names_line_value_and_cure() -> None:
    reason = error(f"public_key={KEY_A}", "endpoint=example.com:5").reason
    assert "line 3" in reason
    assert "example.com:5" in reason
    assert "a.b.c.d:port" in reason


@pytest.mark.parametrize(
    "lines",
    [
        [f"private_key={SECRET}0"],
        [f"public_key={KEY_A}", f"preshared_key={SECRET}0"],
        [SECRET],
        [f"{SECRET}="],
        [f"private_kye={SECRET}"],
        [f"public_key={KEY_A}", f"private_key={SECRET}"],
        [f"private_key={SECRET}", "fwmark=x"],
    ],
)
def test_reasons_and_reprs_hold_no_secret(lines: list[str]) -> None:
    assert SECRET[:10] not in repr(error(*lines))
    assert SECRET[:10] not in repr(requests(f"set=1\nprivate_key={SECRET}\n\n"))


def test_reason_is_one_short_printable_line() -> None:
    reason = error("fwmark=\x1b[31m\x00" + "é" * 500).reason
    assert reason.isprintable()
    assert reason.isascii()
    assert len(reason) < 600


# -- arbitrary bytes -------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        b"get=1",
        b"set=1",
        b"status=1",
        b"control=1",
        b"log_level=info",
        b"endpoint_host=" + b"a" * 64 + b" host:5",
        b"",
        b"",
        b"\r",
        b"x",
        b"listen_port=1",
        b"listen_port=1\r",
        b"fwmark=x",
        b"replace_peers=true",
        b"public_key=" + b"a" * 64,
        b"public_key=" + b"b" * 64,
        b"remove=true",
        b"replace_allowed_ips=true",
        b"allowed_ip=10.0.0.0/8",
        b"endpoint=[fe80::1%eth0]:5",
        b"protocol_version=1",
        b"y" * 70_000,
    ]
)
STREAMS = st.binary(max_size=300) | st.lists(LINES, max_size=20).map(b"\n".join)


@given(STREAMS, st.lists(st.integers(0, 2000), max_size=8), st.booleans())
def test_splitting_never_changes_the_result(data: bytes, cuts: list[int], eof: bool) -> None:
    whole, split = connection(), connection()
    expected = whole.receive_data(data)
    bounds = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    got: list[Request] = []
    for start, end in itertools.pairwise(bounds):
        got += split.receive_data(data[start:end])
    if eof:
        expected += whole.receive_eof()
        got += split.receive_eof()
    assert got == expected
    if Close() in got:
        assert got.index(Close()) == len(got) - 1
