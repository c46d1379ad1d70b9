"""What clients and daemons say to each other about their state: JSON, HTTP, names of hosts."""

import asyncio
import errno
import json
from collections.abc import Iterable
from typing import Any, Final

from tests.fuzz.target import Input, Target, check_one_line
from tests.fuzz.targets.values_of import BASE64, check_no_key
from tests.watch.statuses import device, peer
from wgd.addresses import Endpoint
from wgd.core.endpoints import Endpoints, parse_host
from wgd.ctl.config_file import names_host
from wgd.errors import ConfigurationError, WgdError
from wgd.interface_name import check_interface_name
from wgd.status import DeviceStatus, as_json, from_json, json_parts
from wgd.uapi import grammar
from wgd.uapi.name_file import check_tunnel_name
from wgd.watch import http, listener

# -- a status in JSON ------------------------------------------------------------------------------


def _run_status_json(data: bytes) -> None:
    """What is taken is printable and within bounds, and is read again as the same."""
    try:
        status = from_json(json.loads(data))
    except (ValueError, RecursionError) as error:
        assert isinstance(error, RecursionError) or str(error)
        return
    text = "".join(json_parts(status))
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text) == json.loads(json.dumps(as_json(status)))
    assert from_json(json.loads(text)) == status
    _check_printable(as_json(status))


def _check_printable(value: Any) -> None:
    match value:
        case str():
            assert value.isprintable()
        case dict():
            for name, each in value.items():
                _check_printable(name)
                _check_printable(each)
        case list() | tuple():
            for each in value:
                _check_printable(each)
        case bool():
            pass
        case int() | float():
            assert 0 <= value <= 2**64


def _status_seeds() -> Iterable[bytes]:
    for status in (DeviceStatus("wg0"), device(), device(peer(1), peer(2))):
        yield "".join(json_parts(status)).encode()


_STATUS_WORDS: Final = (
    *(
        b'"interface": "wg0"',
        b'"peers": [',
        b'"failures": [{',
        b'"reason": ',
        b'"count": ',
        b"1e999",
    ),
    *(b'"latency": {"counts": [', b'"handshakes": {', b'"drops": {', b'"queues": {', b"NaN", b"-1"),
    *(
        b'"\\u001b[2J"',
        b'"\\ud800"',
        b"18446744073709551616",
        b"true",
        b"null",
        b"[[[[",
        b"{",
        b"}",
    ),
    *(b'"public_key": ', b'"allowed_ips": [', b'"endpoint": ', b'"unknown_index"', b'"last_ns": '),
)

# -- HTTP ------------------------------------------------------------------------------------------

_MAX_REQUEST_SIZE: Final = 8192
_BODY: Final = b"wgd_up 1\n" * 3


class _Transport:
    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0


class _Writer:
    """In place of a stream writer: it keeps what is written."""

    def __init__(self) -> None:
        self.transport = _Transport()
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None:
        pass


def _run_http(data: bytes) -> None:
    """Each request has one whole answer, in order, and nothing follows a request that is none."""
    chunks = Input(data).chunks()
    loop = _loop()
    questions: list[http.Question] = []

    async def answer(question: http.Question) -> http.Answer:
        questions.append(question)
        return http.Answer(200, "text/plain", _BODY)

    async def serve() -> bytes:
        reader, writer = asyncio.StreamReader(), _Writer()
        for chunk in chunks:
            reader.feed_data(chunk)
        reader.feed_eof()
        connection = http.HttpConnection(reader, writer, answer)  # type: ignore[arg-type]
        await connection.serve()
        return bytes(writer.written)

    written = loop.run_until_complete(serve())
    statuses = _statuses(written)
    assert statuses.count(200) == len(questions)
    assert all(status in (200, 400, 405, 413, 414, 431, 501, 505) for status in statuses)
    assert len(written) <= 512 * (data.count(b"\n") + 2)
    for question in questions:
        assert "?" not in question.path
        assert len(question.path) + len(question.accept) <= _MAX_REQUEST_SIZE


def _statuses(written: bytes) -> list[int]:
    """Return the statuses of answers that lie end to end, by their lengths (or none, for HEAD)."""
    statuses = []
    while written:
        head, blank, rest = written.partition(b"\r\n\r\n")
        assert blank
        assert head.startswith(b"HTTP/1.1 ")
        statuses.append(int(head[9:12]))
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(headers[b"content-length"])
        assert len(rest) >= size or not rest
        written = rest if rest.startswith(b"HTTP/1.1 ") or not rest else rest[size:]
    return statuses


_loops: list[asyncio.AbstractEventLoop] = []


def _loop() -> asyncio.AbstractEventLoop:
    if not _loops:
        _loops.append(asyncio.new_event_loop())
    return _loops[0]


_GET: Final = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n"


def _http_seeds() -> Iterable[bytes]:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    head = b"HEAD /?q=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    put = b"PUT /status HTTP/1.1\r\nHost: a\r\n\r\n"
    chunked = (
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    )
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    connect = b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"
    for request in (_GET, _GET + head, put + _GET, post, chunked, upgrade + _GET, connect):
        yield b"\0" + request
        yield b"\x09" + request
    yield b"\0GET /status HTTP/1.0\r\n\r\n"


_HTTP_WORDS: Final = (
    *(b"GET ", b"HEAD ", b"POST ", b"CONNECT ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: a\r\n"),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Connection: ", b"close\r\n"),
    *(b"Upgrade: x\r\n", b"Expect: 100-continue\r\n", b"\r\n\r\n", b"Accept: ", b"0\r\n\r\n"),
    *(b"keep-alive\r\n", b" HTTP/2.0\r\n"),
)

# -- names and endpoints ---------------------------------------------------------------------------


def _no_zone(_name: str) -> int:
    raise OSError(errno.ENODEV, "No such device")


def _run_names(data: bytes) -> None:
    given = Input(data)
    kind = given.byte() % 6
    content = given.rest()
    text = content.decode("utf-8", "surrogateescape")
    try:
        match kind:
            case 0:
                host, port = parse_host(text)
                assert host
                assert 0 < port < 65_536
                assert parse_host(f"[{host}]:{port}") == (host, port)
                names_host(text)
            case 1:
                check_interface_name(text)
                assert 1 <= len(content) <= 15
                assert not set(content) & set(b"/:% \t\n\0")
            case 2:
                check_tunnel_name(text)
                assert 1 <= len(content) <= 250
                assert not set(content) & set(b"/\n\0\x1b")
            case 3:
                endpoint = grammar.endpoint(content, _no_zone)
                assert grammar.endpoint(str(endpoint).encode(), _no_zone) == endpoint
                assert len(endpoint.packed()) in (6, 18)
            case 4:
                host, port = listener._split(text)
                assert host.isprintable()
            case 5:
                allowed = grammar.allowed_ip(content)
                sign = "-" if allowed.remove else ""
                assert grammar.allowed_ip(f"{sign}{allowed.prefix}".encode()) == allowed
    except WgdError as error:
        if isinstance(error, ConfigurationError):
            check_no_key(str(error))
        check_one_line(str(error))
    except ValueError as error:
        assert kind in (3, 5), error
        check_one_line(str(error))


def _run_endpoints(data: bytes) -> None:
    """Where a peer is looked for goes round all places, each in its turn, and is bounded."""
    given = Input(data)
    places = Endpoints()
    now_ns = 0
    current = Endpoint("192.0.2.1", 1)
    for _ in range(64):
        if not given:
            break
        action = given.byte()
        place = _place(given.byte())
        match action % 7:
            case 0:
                places.configure(place, f"a{place.port}.example:1" if action & 8 else None)
            case 1 | 2:
                current = places.next_after(current)
                assert current.source is None
                ring = [current]
                for _ in range(20):
                    ring.append(places.next_after(ring[-1]))
                assert len(set(ring)) <= 16 + 3
                assert ring[len(set(ring))] == ring[0], "a place is left out"
            case 3:
                current = place
                places.heard()
            case 4:
                wanted = places.take_lookup(now_ns)
                assert wanted is None or wanted[1] == 1
            case 5:
                moved = places.found([_place(given.byte()) for _ in range(action // 8)])
                assert moved is None or moved == places.configured
            case 6:
                now_ns += given.number() * 1_000_000
                places.allow_lookup(now_ns)
    assert (places.give_up() is None) == (places.configured is None)


def _place(number: int) -> Endpoint:
    host = f"2001:db8::{number}" if number % 3 == 0 else f"192.0.2.{number}"
    return Endpoint(host, 1 + number % 4)


def _name_seeds() -> Iterable[bytes]:
    names = (
        *(b"vpn.example.org:51820", b"[2001:db8::1]:51820", b"wg0", b"My tunnel \xc3\xa9"),
        *(b"192.0.2.1:51820", b"[fe80::1%2]:51820", b"10.0.0.0/8", b"-fd00::/8", b"*:9586"),
        *(b"::ffff:192.0.2.1/96", b"[::]:9586", b"/run/wgd/wg0.sock"),
    )
    for name in names:
        for kind in range(6):
            yield bytes([kind]) + name


TARGETS: Final = (
    Target("status_json", _run_status_json, ("wgd.status",), _status_seeds, _STATUS_WORDS, 8192),
    Target("http", _run_http, ("wgd.watch.http",), _http_seeds, _HTTP_WORDS, 16_384),
    Target(
        "names",
        _run_names,
        ("wgd.uapi.grammar", "wgd.interface_name"),
        _name_seeds,
        (
            *BASE64,
            b"%",
            b"[",
            b"]:",
            b"::",
            b"255",
            b"65535",
            b"/128",
            b"\xc2\x85",
            b"\xf0\x9f\x90\x89",
        ),
        300,
    ),
    Target(
        "endpoints",
        _run_endpoints,
        ("wgd.core.endpoints",),
        lambda: (
            b"\0\1\1\0\2\0\x2d\0\3\6\7\1\0\1\0",
            b"\x08\1\4\0\x1d\0\1\2\3\1\0\6\0\xff\xff\4\0\1\0",
        ),
        max_size=256,
    ),
)
