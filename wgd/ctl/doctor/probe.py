"""The few packets that are sent: an empty datagram to an endpoint, and pings of some sizes.

WireGuard ignores an empty datagram, but a closed port, a router and this machine's own firewall
answer it with an error. A ping that must not be cut shows what size the path takes.
"""

import errno
import os
import secrets
import select
import socket
import struct
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

from wgd.ctl.doctor.facts import EndpointProbe, MtuProbe

ANSWER_SECONDS: Final = 1.0
UNREACHABLE_SECONDS: Final = 3.5
"""So long the kernel looks for a neighbour before it says that there is none."""
SMALL_SIZE: Final = 100
SIZES: Final = (1492, 1480, 1460, 1440, 1420, 1400, 1380, 1360, 1340, 1320, 1280, 1000, 576)
"""Sizes of IP packets in bytes that are tried when the wanted one is not answered."""

_RECVERR: Final = {  # without it, "host unreachable" is not reported
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_DONTFRAG: Final = 62
_PMTUDISC_PROBE: Final = 3  # never cut, whatever the kernel believes of the path
_ECHO: Final = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
_HEADER_SIZE: Final = {socket.AF_INET: 20, socket.AF_INET6: 40}
_TOKEN_SIZE: Final = 8
_Address = tuple[str | int, ...]


def probe_endpoint(endpoint: str, fwmark: int) -> EndpointProbe:
    """Send an empty datagram and a ping to a numeric endpoint and see what comes back.

    Takes up to `UNREACHABLE_SECONDS`. Raises PermissionError if `fwmark` may not be set.
    """
    family, address = _address(endpoint)
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        _set_mark(asked, fwmark)
        asked.setsockopt(*_RECVERR[asked.family], 1)
        asked.setblocking(False)
        pinger = _pinger(endpoint, fwmark)
        try:
            asked.connect(address)
            asked.send(b"")
        except OSError as error:
            if pinger is not None:
                pinger.close()
            return EndpointProbe(error.errno or errno.EIO)
        answers_ping = None if pinger is None else False
        try:
            if pinger is not None and not pinger.send(1, SMALL_SIZE):
                answers_ping = None
            deadline = time.monotonic() + UNREACHABLE_SECONDS
            while (rest := deadline - time.monotonic()) > 0:
                watched = [asked, *([pinger.socket] if pinger is not None else [])]
                ready, _, _ = select.select(watched, [], [], rest)
                if asked in ready:
                    try:
                        asked.recv(1)
                    except OSError as error:
                        return EndpointProbe(error.errno or errno.EIO, answers_ping)
                if pinger is not None and pinger.socket in ready and pinger.receive():
                    answers_ping = True
                    # An error for the datagram would take as long as the ping's answer.
                    deadline = min(deadline, time.monotonic() + ANSWER_SECONDS / 2)
        finally:
            if pinger is not None:
                pinger.close()
        return EndpointProbe(0, answers_ping)


def probe_mtu(host: str, wanted: int, fwmark: int = 0, *, is_inside: bool = False) -> MtuProbe:
    """Ping a numeric host with packets of `wanted` bytes, and smaller ones if that is not answered.

    Takes up to some `ANSWER_SECONDS`. Raises PermissionError if no ping may be sent.
    """
    pinger = _pinger(f"[{host}]:0", fwmark)
    if pinger is None:
        raise PermissionError(errno.EPERM, "pings need root here")
    try:
        answered = _answered(pinger, (SMALL_SIZE, wanted))
        if answered and wanted not in answered:
            smaller = [size for size in SIZES if SMALL_SIZE < size < wanted]
            answered |= _answered(pinger, [wanted, *smaller])
    finally:
        pinger.close()
    return MtuProbe(host, wanted, max(answered, default=0), is_inside)


def _answered(pinger: "_Pinger", sizes: Sequence[int]) -> set[int]:
    """Return those of `sizes` that were answered."""
    sent = {number: size for number, size in enumerate(sizes) if pinger.send(number, size)}
    answered: set[int] = set()
    deadline = time.monotonic() + ANSWER_SECONDS
    while len(answered) < len(sent) and (rest := deadline - time.monotonic()) > 0:
        if select.select([pinger.socket], [], [], rest)[0]:
            answered |= {sent[number] for number in pinger.receive() if number in sent}
    return answered


class _Pinger:
    """Sends ICMP echo requests that are never cut, and knows the answers to them."""

    def __init__(self, opened: socket.socket, address: _Address) -> None:
        self.socket = opened
        self._family = opened.family
        self._address = address
        self._token = secrets.token_bytes(_TOKEN_SIZE)
        self._identifier = os.getpid() & 0xFFFF
        self._is_raw = opened.type == socket.SOCK_RAW

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def send(self, number: int, size: int) -> bool:
        """Send a request in an IP packet of `size` bytes; whether that was possible."""
        payload = self._token.ljust(size - _HEADER_SIZE[self._family] - 8, b"\0")
        kind = _ECHO[self._family][0]
        header = struct.pack("!BBHHH", kind, 0, 0, self._identifier, number)
        header = struct.pack(
            "!BBHHH", kind, 0, _checksum(header + payload), self._identifier, number
        )
        try:
            self.socket.sendto(header + payload, self._address)
        except OSError:
            return False
        return True

    def receive(self) -> set[int]:
        """Return the numbers of our requests that were answered."""
        numbers: set[int] = set()
        while True:
            try:
                data = self.socket.recv(2 * 65_536)
            except BlockingIOError:
                return numbers
            except OSError:  # an ICMP error for one of them
                continue
            if self._is_raw and self._family == socket.AF_INET and data:
                data = data[(data[0] & 15) * 4 :]
            is_answer = data[:1] == bytes([_ECHO[self._family][1]])
            if is_answer and data[8 : 8 + _TOKEN_SIZE] == self._token:
                numbers.add(int.from_bytes(data[6:8], "big"))


def _pinger(endpoint: str, fwmark: int) -> _Pinger | None:
    """Return a pinger for the host of an endpoint, None if this user may not ping."""
    family, address = _address(endpoint)
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            opened = socket.socket(family, kind, protocol)
        except OSError:
            continue
        try:
            opened.setblocking(False)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
                opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
            else:
                opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
            _set_mark(opened, fwmark)
        except OSError:
            opened.close()
            return None
        host = (address[0], 0, *address[2:])
        return _Pinger(opened, host)
    return None


def _set_mark(opened: socket.socket, fwmark: int) -> None:
    if fwmark:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", fwmark))


def _address(endpoint: str) -> tuple[int, _Address]:
    """Return family and address of a numeric endpoint."""
    host, _, port = endpoint.rpartition(":")
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM, flags=flags)
    family, _, _, _, address = found[0]
    return family, tuple(part for part in address if isinstance(part, str | int))


def _checksum(data: bytes) -> int:
    words: Iterable[tuple[int]] = struct.iter_unpack("!H", data + b"\0" * (len(data) % 2))
    total = sum(word for (word,) in words)
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
