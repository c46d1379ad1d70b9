"""The `control` message: what is understood, what is refused and how, and there and back again."""

import errno
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.configuration import LOG_LEVELS, ControlChange
from wgd.errors import ConfigurationError
from wgd.uapi.control import control_request
from wgd.uapi.protocol import BadRequest, Connection, ControlRequest

KEY = bytes([0xAA]) * 32
OTHER = bytes([0xBB]) * 32


def take(data: bytes) -> ControlRequest | BadRequest:
    def no_zones(name: str) -> int:
        raise OSError(name)

    (request,) = Connection(no_zones).receive_data(data)
    assert isinstance(request, ControlRequest | BadRequest), request
    return request


def change(*lines: str) -> ControlChange:
    request = take("\n".join(["control=1", *lines, "", ""]).encode())
    assert isinstance(request, ControlRequest), request
    return request.change


def error(*lines: str) -> BadRequest:
    request = take("\n".join(["control=1", *lines, "", ""]).encode())
    assert isinstance(request, BadRequest), request
    return request


def test_an_empty_control_changes_nothing() -> None:
    assert change() == ControlChange(None, ())


@pytest.mark.parametrize("level", ["verbose", "debug", "info", "error", "silent"])
def test_every_level(level: str) -> None:
    assert change(f"log_level={level}") == ControlChange(level)


def test_the_last_level_counts_and_hosts_stay_in_order() -> None:
    assert change(
        "log_level=error",
        f"endpoint_host={KEY.hex()} a.example:1",
        f"endpoint_host={OTHER.hex().upper()} b.example.:65535",
        f"endpoint_host={KEY.hex()} c:51820",
        "log_level=info",
    ) == ControlChange(
        "info", ((KEY, "a.example:1"), (OTHER, "b.example.:65535"), (KEY, "c:51820"))
    )


@pytest.mark.parametrize("level", ["", "Verbose", "warning", "info ", "10", "é"])
def test_an_unknown_level_is_refused_by_name(level: str) -> None:
    refused = error(f"log_level={level}")
    assert refused.errno == -errno.EINVAL
    assert all(name in refused.reason for name in LOG_LEVELS)


@pytest.mark.parametrize(
    "host",
    [
        *["", "host", "host:", ":1", "host:0", "host:65536", "host:1 ", " host:1", "host:-1"],
        *["host:1:2", "[::1]:1", "::1:1", "-host:1", "host-:1", "a..b:1", ".a:1", "a b:1", "é:1"],
        *["a" * 64 + ":1", ".".join(["a" * 60] * 5) + ":1", "host:" + "0" * 70 + "1", "a\tb:1"],
    ],
)
def test_a_host_that_cannot_be_is_refused_and_shown(host: str) -> None:
    refused = error(f"endpoint_host={KEY.hex()} {host}")
    assert refused.errno == -errno.EINVAL
    assert "a host name, a colon and a port" in refused.reason
    assert refused.reason.isprintable()


def test_the_longest_names() -> None:
    label = "a" * 63
    name = ".".join([label, label, label, "a" * 61])
    assert len(name) == 253
    assert change(f"endpoint_host={KEY.hex()} {name}:1").endpoint_hosts == ((KEY, f"{name}:1"),)
    assert error(f"endpoint_host={KEY.hex()} {name}a:1").errno == -errno.EINVAL


@pytest.mark.parametrize("key", ["", "aa", "g" * 64, "a" * 63, "a" * 65, "a" * 64 + "\t"])
def test_a_key_that_cannot_be_is_refused_and_not_shown(key: str) -> None:
    refused = error(f"endpoint_host={key} host:1")
    assert refused.errno == -errno.EINVAL
    assert "64 hexadecimal digits" in refused.reason
    assert len(key) < 60 or key[:60] not in refused.reason


def test_what_is_no_setting_and_what_is_no_line() -> None:
    secret = "5ec7e7" * 10 + "abcd"
    assert error("log_level").errno == -errno.EPROTO
    assert error("listen_port=1").errno == -errno.EINVAL
    for refused in (error(secret), error(f"{secret}="), error(f"private_key={secret}")):
        assert secret[:10] not in refused.reason


def test_the_first_error_counts_and_nothing_of_it_leaks_into_the_next_message() -> None:
    stream = Connection(len)
    first, second = stream.receive_data(
        b"control=1\nlog_level=info\nlog_level=loud\nnonsense\n\ncontrol=1\n\n"
    )
    assert isinstance(first, BadRequest)
    assert first.errno == -errno.EINVAL
    assert first.reason.startswith("line 3: log_level")
    assert second == ControlRequest(ControlChange())


LABELS = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=20)
HOSTS = st.tuples(
    st.lists(LABELS, min_size=1, max_size=4).map(".".join), st.integers(1, 65535)
).map(lambda host: f"{host[0]}:{host[1]}")
CHANGES = st.builds(
    ControlChange,
    st.none() | st.sampled_from(LOG_LEVELS),
    st.lists(st.tuples(st.binary(min_size=32, max_size=32), HOSTS), max_size=5).map(tuple),
)


@given(CHANGES)
def test_a_request_is_understood_as_it_was_meant(meant: ControlChange) -> None:
    assert take(control_request(meant)) == ControlRequest(meant)


@pytest.mark.parametrize(
    "meant",
    [
        ControlChange("loud"),
        ControlChange("info\nlog_level=error"),
        ControlChange(endpoint_hosts=((b"short", "host:1"),)),
        ControlChange(endpoint_hosts=((KEY, "host"),)),
        ControlChange(endpoint_hosts=((KEY, "host:1\nlog_level=silent"),)),
        ControlChange(endpoint_hosts=((KEY, "hôst:1"),)),
    ],
)
def test_a_change_that_cannot_be_makes_no_request(meant: ControlChange) -> None:
    with pytest.raises(ConfigurationError, match="must be") as caught:
        control_request(meant)
    assert caught.value.errno == errno.EINVAL
    assert "\n" not in str(caught.value)


def test_a_repr_holds_no_key() -> None:
    meant = ControlChange("info", ((KEY, "host:1"),))
    assert repr(KEY)[2:10] not in repr(meant)
