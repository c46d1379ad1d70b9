"""Known peers that shake hands without end, and how long each of them waits for the answer.

A program of its own, so that nothing but the daemon makes it wait:
`scale_probe.py PORT SERVER_PUBLIC_KEY_HEX COUNT SECONDS`. It prints the public keys of COUNT peers,
one in hex per line, then an empty line; waits for a line on stdin (the daemon knows them now); then
one of them sends an initiation every SECONDS. For each further line `FROM TO` (clock of
`time.monotonic_ns`) it prints what became of those sent in between, as JSON; at the end of stdin it
ends.
"""

import contextlib
import errno
import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from wgd.clock import Instant
from wgd.noise.cookie import CookieGenerator
from wgd.noise.handshake import Handshake, StaticIdentity

_RESPONSE, _RESPONSE_SIZE = 2, 92
_LATEST_ANSWER_SECONDS = 1.0
_MOST_SENT = 1_000_000


@dataclass
class _Peer:
    handshake: Handshake
    cookies: CookieGenerator


class _Probe:
    def __init__(self, port: int, server: bytes, count: int, pause_seconds: float) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._pause_seconds = pause_seconds
        identities = [StaticIdentity(os.urandom(32)) for _ in range(count)]
        self.public_keys = [identity.public_key for identity in identities]
        self._peers = [
            _Peer(Handshake(identity, server), CookieGenerator(server)) for identity in identities
        ]
        self._sent_ns: list[int] = []
        self._answered_ns: dict[int, int] = {}

    def run(self) -> None:
        for _ in self._turns():
            line = sys.stdin.readline()
            if not line:
                return
            first_ns, last_ns = map(int, line.split())
            # What was sent last may still be answered.
            self._serve(time.monotonic() + _LATEST_ANSWER_SECONDS)
            sys.stdout.write(json.dumps(self._summary(first_ns, last_ns)) + "\n")
            sys.stdout.flush()

    def _turns(self) -> Iterator[None]:
        """Yield whenever there is a line to read."""
        while True:
            if self._serve(None):
                yield

    def _serve(self, until: float | None) -> bool:
        """Send and receive until then, or until there is a line to read: that is True."""
        inputs = [self._socket] if until is not None else [self._socket, sys.stdin]
        due = time.monotonic()
        while until is None or due < until:
            pause = max(0.0, due - time.monotonic())
            readable, _, _ = select.select(inputs, [], [], pause)
            if self._socket in readable:
                self._receive()
            if sys.stdin in readable:
                return True
            if time.monotonic() >= due:
                self._send()
                due = max(due + self._pause_seconds, time.monotonic())
        return False

    def _send(self) -> None:
        number = len(self._sent_ns)
        if number >= _MOST_SENT:
            raise SystemExit("too many initiations")
        peer = self._peers[number % len(self._peers)]
        now = Instant(boot_ns=time.monotonic_ns(), wall_ns=time.time_ns())
        message = peer.handshake.create_initiation(now, number, os.urandom)
        datagram = peer.cookies.add_macs(message, now.boot_ns)
        self._sent_ns.append(time.monotonic_ns())
        try:
            self._socket.send(datagram)
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.EAGAIN):
                raise

    def _receive(self) -> None:
        try:
            while True:
                answer = self._socket.recv(256)
                if len(answer) == _RESPONSE_SIZE and answer[0] == _RESPONSE:
                    number = int.from_bytes(answer[8:12], "little")
                    self._answered_ns.setdefault(number, time.monotonic_ns())
        except (BlockingIOError, ConnectionRefusedError):
            pass

    def _summary(self, first_ns: int, last_ns: int) -> dict[str, float]:
        waits = []
        lost = 0
        for number, sent_ns in enumerate(self._sent_ns):
            if first_ns <= sent_ns <= last_ns:
                answered_ns = self._answered_ns.get(number)
                if answered_ns is None:
                    lost += 1
                else:
                    waits.append((answered_ns - sent_ns) / 1e6)
        waits.sort()
        return {
            "sent": len(waits) + lost,
            "lost": lost,
            "median_ms": waits[len(waits) // 2] if waits else 0.0,
            "longest_ms": waits[-1] if waits else 0.0,
        }


def main() -> None:
    """Do as the module says."""
    port, server, count, seconds = sys.argv[1:]
    probe = _Probe(int(port), bytes.fromhex(server), int(count), float(seconds))
    for public_key in probe.public_keys:
        sys.stdout.write(public_key.hex() + "\n")
    sys.stdout.write("\n")
    sys.stdout.flush()
    sys.stdin.readline()
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # what waits for a processor here would look like the daemon's fault
    probe.run()


if __name__ == "__main__":
    main()
