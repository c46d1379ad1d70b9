"""What the operating system and the service manager say: netlink and route sockets, control
messages, the environment.
"""

import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from tests.fuzz.target import Input, Target, check_one_line
from wgd.addresses import Endpoint, Source
from wgd.errors import WgdError
from wgd.net import darwin_route_socket, netlink
from wgd.net.link import LinkWatcher
from wgd.net.pktinfo import DARWIN, LINUX
from wgd.quick.rtnetlink import Rtnetlink, covers
from wgd.service import descriptors
from wgd.service.notify import ServiceManager

# -- sockets and loops that are none ---------------------------------------------------------------

_PORT_ID: Final = 4711


class _Socket:
    """In place of a netlink socket: it gives the datagrams that an input holds."""

    def __init__(self, datagrams: Iterable[tuple[bytes, list[tuple[int, int, bytes]]]]) -> None:
        self._datagrams = iter(datagrams)
        self.is_open = True
        self.sent = 0

    def __enter__(self) -> "_Socket":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def getsockname(self) -> tuple[int, int]:
        return _PORT_ID, 0

    def fileno(self) -> int:
        return 99 if self.is_open else -1

    def close(self) -> None:
        self.is_open = False

    def setsockopt(self, *_: object) -> None:
        pass

    def settimeout(self, _seconds: float) -> None:
        pass

    def send(self, data: bytes) -> int:
        self.sent += 1
        return len(data)

    def recv(self, size: int) -> bytes:
        data, _ = next(self._datagrams, (None, []))
        if data is None:
            raise TimeoutError("timed out")
        return data[:size]

    def recvmsg(self, size: int, _: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        data, ancillary = next(self._datagrams, (None, []))
        if data is None:
            raise BlockingIOError(errno.EAGAIN, "again")
        return data[:size], ancillary, 0, (0, 1)


class _Handle:
    def cancel(self) -> None:
        pass


class _Loop:
    """An event loop that calls nobody by itself."""

    def call_soon(self, _call: Callable[[], None]) -> _Handle:
        return _Handle()

    def call_later(self, _seconds: float, _call: Callable[[], None]) -> _Handle:
        return _Handle()

    def add_reader(self, _fd: int, _call: Callable[[], None]) -> None:
        pass

    def remove_reader(self, _fd: int) -> None:
        pass


class _Tun:
    def current_name(self) -> str:
        return "wg0"

    def is_gone(self) -> bool:
        return False

    def network_namespace(self) -> int:
        raise OSError(errno.EPERM, "not permitted")


# -- link events -----------------------------------------------------------------------------------


def _run_link_events(data: bytes) -> None:
    """Whatever a netlink socket gives, the watcher reports changes, and only whole ones."""
    given = Input(data)
    datagrams: list[tuple[bytes, list[tuple[int, int, bytes]]]] = []
    while given and len(datagrams) < 8:
        flags = given.byte()
        ancillary: list[tuple[int, int, bytes]] = []
        if flags & 1:
            size = 4 if flags & 2 else given.byte() % 9
            content = given.take(size)
            ancillary.append((270, 8, content))
        content = given.take(given.number() % 2048)
        datagrams.append((content, ancillary))
    count = len(datagrams)
    opened = _Socket(datagrams)
    links: list[bool] = []
    mtus: list[int] = []
    before, netlink.open_socket = netlink.open_socket, lambda _groups=0: opened  # type: ignore
    try:
        watcher = LinkWatcher(
            _Loop(),  # type: ignore[arg-type]
            _Tun(),
            on_link=links.append,
            on_mtu=mtus.append,
            on_gone=check_one_line,
        )
        watcher._begin()
        for _ in range(count + 1):
            watcher._readable()
        watcher.close()
    finally:
        netlink.open_socket = before
    assert opened.sent <= 20 * (count + 1)
    assert all(one is not other for one, other in itertools.pairwise(links))
    assert all(type(mtu) is int and 0 <= mtu < 2**32 for mtu in mtus)


def _link_message(
    kind: int, sequence: int, port_id: int, *, index: int, up: bool, mtu: int
) -> bytes:
    body = struct.pack("=BxHiII", 0, 65534, index, int(up), 0xFFFFFFFF)
    body += struct.pack("=HH", 8, 3) + b"wg0\0" + struct.pack("=HHI", 8, 4, mtu)
    # IFLA_LINKINFO with IFLA_INFO_KIND
    body += struct.pack("=HHHH", 12, 18, 8, 1) + b"tun\0"
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, port_id) + body


def _error_message(sequence: int, number: int) -> bytes:
    body = struct.pack("=i", -number) + bytes(16)
    return struct.pack("=IHHII", 16 + len(body), 2, 0, sequence, _PORT_ID) + body


def _event(datagram: bytes, namespace: bytes = b"") -> bytes:
    head = b"\3" + namespace if namespace else b"\0"
    return head + len(datagram).to_bytes(2, "big") + datagram


def _link_seeds() -> Iterable[bytes]:
    answer = _link_message(16, 1, _PORT_ID, index=7, up=True, mtu=1420)
    down = _link_message(16, 0, 0, index=7, up=False, mtu=1400)
    gone = _link_message(17, 0, 0, index=7, up=False, mtu=1400)
    yield _event(answer) + _event(down) + _event(gone)
    yield _event(answer + down) + _event(down, b"\1\0\0\0")
    yield _event(_error_message(1, errno.ENODEV)) + _event(answer)
    yield _event(_error_message(1, errno.EPERM))


_NETLINK_WORDS: Final = (
    *(b"\x10\0\0\0", b"\x10\0", b"\x11\0", b"\2\0\0\0", b"\3\0\0\0", b"\x10\0\0\0\3\0\2\0"),
    *(b"\x67\x12\0\0", b"\1\0\0\0\x67\x12\0\0", b"\7\0\0\0", b"\4\0\4\0", b"\x08\0\4\0"),
    *(b"\x12\0", b"\x0f\0", b"\x1e\0", b"\x1a\0", b"\x16\0", b"\2\x18\0\0", b"\x0a\x80\0\0"),
)

# -- what `up` asks the kernel ---------------------------------------------------------------------


def _run_rtnetlink(data: bytes) -> None:
    """Hostile answers to every question end in values of the right kind or in an OSError."""
    given = Input(data)
    question = given.byte() % 9
    datagrams: list[tuple[bytes, list[tuple[int, int, bytes]]]] = []
    while given and len(datagrams) < 8:
        datagrams.append((given.take(given.number() % 2048), []))
    opened = _Socket(datagrams)
    before, netlink.open_socket = netlink.open_socket, lambda _groups=0: opened  # type: ignore
    try:
        with Rtnetlink() as connection:
            _ask(connection, question)
    except OSError:
        pass
    finally:
        netlink.open_socket = before


def _ask(connection: Rtnetlink, question: int) -> None:
    match question:
        case 0:
            link = connection.link("wg0")
            assert link is None or type(link.index) is int
        case 1:
            for address in connection.addresses(7):
                assert address.version in (4, 6)
        case 2 | 3:
            version = (4, 6)[question % 2]
            for route in connection.routes(version, 254, 7):
                assert covers([route], route.network)
        case 4:
            mtu = connection.default_route_mtu()
            assert mtu is None or type(mtu) is int
        case 5:
            for rule in connection.rules(4):
                assert type(rule.priority) is int
            connection.next_rule_priority(4)
        case 6:
            assert connection.remove_link(7) in (True, False)
        case 7:
            assert netlink.get_route_interface(socket.AF_INET, "192.0.2.1", "192.0.2.2", 1, 0) >= 0
        case 8:
            assert netlink.has_packet_information("wg0") in (True, False)


def _reply(kind: int, body: bytes, sequence: int = 1, flags: int = 2) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, _PORT_ID) + body


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def _rtnetlink_seeds() -> Iterator[bytes]:
    done = _reply(3, bytes(4))

    def asked(question: int, *datagrams: bytes) -> bytes:
        sized = (len(each).to_bytes(2, "big") + each for each in datagrams)
        return bytes([question]) + b"".join(sized)

    link = _link_message(16, 1, _PORT_ID, index=7, up=True, mtu=1420)
    yield asked(0, link)
    yield asked(0, _error_message(1, errno.ENODEV))
    address = struct.pack("=BBBBi", 2, 24, 0, 0, 7)
    address += _attribute(1, bytes((10, 0, 0, 1))) + _attribute(2, bytes((10, 0, 0, 1)))
    second = _reply(3, bytes(4), sequence=2)
    yield asked(1, _reply(20, address) + done, second)
    route = struct.pack("=BBBBBBBBI", 2, 8, 0, 0, 254, 3, 253, 1, 0)
    route += _attribute(15, struct.pack("=I", 254)) + _attribute(4, struct.pack("=i", 7))
    route += _attribute(1, bytes((10, 0, 0, 0)))
    yield asked(2, _reply(24, route) + done)
    default = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
    default += _attribute(15, struct.pack("=I", 254)) + _attribute(4, struct.pack("=i", 7))
    default += _attribute(8, _attribute(2, struct.pack("=I", 1400)))
    yield asked(4, _reply(24, default) + done)
    multipath = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
    multipath += _attribute(15, struct.pack("=I", 254))
    multipath += _attribute(9, struct.pack("=HBBi", 8, 0, 0, 7))
    again = _link_message(16, 2, _PORT_ID, index=7, up=True, mtu=1420)
    yield asked(4, _reply(24, multipath) + done, again)
    rule = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 0, 0, 0, 1, 2)
    rule += _attribute(15, struct.pack("=I", 51820)) + _attribute(6, struct.pack("=I", 32765))
    rule += _attribute(10, struct.pack("=I", 51820)) + _attribute(16, b"\xff" * 4)
    rule += _attribute(14, struct.pack("=I", 2**32 - 1)) + _attribute(21, b"\0")
    yield asked(5, _reply(32, rule) + done, _reply(32, rule, 2) + second)
    yield asked(6, _error_message(1, 0))
    yield asked(6, _error_message(1, errno.ENODEV))
    yield asked(7, _reply(24, route))
    yield asked(8, link)


# -- macOS's route socket --------------------------------------------------------------------------


def _run_route_socket(data: bytes) -> None:
    messages = list(darwin_route_socket.decode(data))
    assert len(messages) <= len(data) // 4
    for message in messages:
        assert message.kind in (1, 2, 3, 0xC, 0xD, 0xE)
        assert 0 <= message.interface_index < 65_536
        assert not message.is_default or message.kind in (1, 2, 3)
    # Cut anywhere, what is whole is still read.
    half = list(darwin_route_socket.decode(data[: len(data) // 2]))
    assert messages[: len(half)] == half


def _route_seeds() -> Iterable[bytes]:
    def route(kind: int, flags: int, addresses: int, tail: bytes) -> bytes:
        head = struct.pack("=HBBH2xiiiii", 92 + len(tail), 5, kind, 7, flags, addresses, 1, 2, 0)
        return head.ljust(92, b"\0") + tail

    def address(family: int, content: bytes = b"") -> bytes:
        size = 2 + len(content)
        return bytes([size, family]) + content + bytes(-size % 4)

    yield route(1, 1, 7, address(2, bytes(14)) + address(2, bytes(14)) + b"\0\0\0\0")
    yield route(2, 1, 1, address(30, bytes(26)))
    yield route(3, 5, 5, address(2, bytes((0, 0, 10, 0, 0, 0))) + bytes((5, 0, 0, 0, 128, 0, 0, 0)))
    interface = struct.pack("=HBBiiH", 16, 5, 0xE, 0, 0x41, 7)
    yield interface + route(1, 1, 7, address(2, bytes(14)) + address(2, bytes(14)) + bytes(4))
    yield struct.pack("=HBBiiH", 16, 5, 0xC, 4, 0, 7) + struct.pack("=HBBiiH", 16, 4, 0xC, 4, 0, 7)


# -- control messages ------------------------------------------------------------------------------


def _run_control_messages(data: bytes) -> None:
    """What is not an address is none; one that was read can be sent from, and is read again."""
    given = Input(data)
    system = given.choice((LINUX, DARWIN))
    ancillary: list[tuple[int, int, bytes]] = []
    while given and len(ancillary) < 8:
        level = given.choice((socket.IPPROTO_IP, socket.IPPROTO_IPV6, given.number()))
        kinds = (system.ip_pktinfo, system.ipv6_pktinfo, given.byte())
        ancillary.append((level, given.choice(kinds), given.take(given.byte() % 24)))
    source = system.parse_source(ancillary)
    if source is None:
        return
    host = "2001:db8::1" if ":" in source.address else "192.0.2.1"
    messages = system.control_messages(Endpoint(host, 1, source=source))
    assert len(messages) == 1
    level, kind, content = messages[0]
    assert len(content) in (12, 20)
    if system.has_local_address or ":" in source.address:
        again = system.parse_source([(level, kind, content)])
        assert again is not None
        assert again.address == source.address
        assert again.interface_index in (0, source.interface_index)
    assert isinstance(source, Source)


# -- the environment -------------------------------------------------------------------------------

_FIRST_FD: Final = 900
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC")


def _run_environment(data: bytes) -> None:
    """Descriptors are taken as named or not at all; the manager's address and time are checked."""
    texts = [os.fsdecode(each) for each in data.split(b"\0")]
    environment = dict(zip((*_VARIABLES, "WATCHDOG_PID"), texts, strict=False))
    manager = ServiceManager.from_environment(environment, 7)
    assert manager.watchdog_seconds is None or 0 < manager.watchdog_seconds < 1e14
    # Nothing is sent: an address may be anything that listens here.
    opened = _open_some()
    before, descriptors.FIRST = descriptors.FIRST, _FIRST_FD  # type: ignore[misc]
    try:
        handed = descriptors.take(environment, 7)
        named = [handed.uapi, handed.uapi_own, handed.state, handed.janitor]
        taken = [*handed.tun, *(fd for fd in named if fd is not None)]
        assert len(set(taken)) == len(taken)
        assert set(taken) <= set(opened)
        assert all(not os.get_inheritable(fd) for fd in taken)
    except WgdError as error:
        assert str(error)
    finally:
        descriptors.FIRST = before  # type: ignore[misc]
        for fd in opened:
            try:
                os.close(fd)
            except OSError as error:
                assert error.errno == errno.EBADF
    assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & set(environment)


def _open_some() -> list[int]:
    null = os.open("/dev/null", os.O_RDONLY)
    opened = [os.dup2(null, _FIRST_FD + number) for number in range(6)]
    os.close(null)
    return opened


TARGETS: Final = (
    Target(
        "link_events",
        _run_link_events,
        ("wgd.net.link", "wgd.net.netlink"),
        _link_seeds,
        _NETLINK_WORDS,
    ),
    Target(
        "rtnetlink",
        _run_rtnetlink,
        ("wgd.quick.rtnetlink", "wgd.quick.netlink_connection", "wgd.net.netlink"),
        _rtnetlink_seeds,
        _NETLINK_WORDS,
    ),
    Target(
        "route_socket",
        _run_route_socket,
        ("wgd.net.darwin_route_socket",),
        _route_seeds,
        (b"\x5c\0\5\1", b"\x10\0\5\x0e", b"\x1c\x1e", b"\x10\2"),
    ),
    Target(
        "control_messages",
        _run_control_messages,
        ("wgd.net.pktinfo",),
        lambda: (
            b"\0\0\0\0\0\0\x0c\7\0\0\0\xc0\0\2\1\xc0\0\2\1",
            b"\0\1\0\0\0\1\x14\xfe\x80" + bytes(14) + b"\7\0\0\0",
        ),
        max_size=256,
    ),
    Target(
        "environment",
        _run_environment,
        ("wgd.service.descriptors", "wgd.service.notify"),
        lambda: (
            b"7\x003\0tun:tun:uapi\0/run/systemd/notify\x0030000000\x007",
            b"7\x004\0tun:uapi-own:state:janitor\0@abstract\x001\0",
            b"7\x002\0uapi:uapi-own\0vsock:2\0-1\x008",
        ),
        (b"tun", b"uapi", b"uapi-own", b"state", b"janitor", b":", b"\0", b"7\0", b"@", b"/"),
        256,
    ),
)
