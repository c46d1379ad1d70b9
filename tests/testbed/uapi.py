"""The configuration protocol spoken raw, for what `wg` would never send."""

import socket
from dataclasses import dataclass, field
from pathlib import Path

SOCKET_DIRECTORY = Path("/var/run/wireguard")
_TIMEOUT_SECONDS = 10


@dataclass
class PeerView:
    """One peer as `get` prints it."""

    values: dict[str, str] = field(default_factory=dict)
    allowed_ips: list[str] = field(default_factory=list)

    @property
    def last_handshake_ns(self) -> int:
        """Unix time of the last handshake in nanoseconds, 0 for never."""
        seconds = int(self.values.get("last_handshake_time_sec", "0"))
        return seconds * 10**9 + int(self.values.get("last_handshake_time_nsec", "0"))


@dataclass
class DeviceView:
    """What `get` prints, peers by their public key in hex."""

    values: dict[str, str]
    peers: dict[str, PeerView]


class UapiConnection:
    """One connection to a daemon's socket; a context manager."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(_TIMEOUT_SECONDS)
        self._unread = b""
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> "UapiConnection":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()

    def send(self, text: str) -> None:
        """Write `text` as it is."""
        self.socket.sendall(text.encode())

    def half_close(self) -> None:
        """Say that nothing more will be written."""
        self.socket.shutdown(socket.SHUT_WR)

    def reply(self) -> list[str]:
        """Return the lines of the next reply, without the blank one; EOFError if there is none."""
        while b"\n\n" not in self._unread:
            if not (chunk := self.socket.recv(1 << 20)):
                raise EOFError(f"connection closed after {self._unread!r}")
            self._unread += chunk
        reply, _, self._unread = self._unread.partition(b"\n\n")
        return reply.decode("ascii").split("\n")

    def request(self, text: str) -> list[str]:
        """Send one request and return the lines of its reply."""
        self.send(text)
        return self.reply()

    def is_closed_by_daemon(self) -> bool:
        """Wait for the next byte and return whether the end came instead."""
        return self._unread == b"" and self.socket.recv(1) == b""


def uapi_set(path: Path, lines: str) -> list[str]:
    """Send one set request of `lines` (each with its newline) and return the reply's lines."""
    with UapiConnection(path) as connection:
        return connection.request(f"set=1\n{lines}\n")


def uapi_get(path: Path) -> DeviceView:
    """Return what the daemon says about itself; AssertionError unless errno is 0."""
    with UapiConnection(path) as connection:
        return parse_get(connection.request("get=1\n\n"))


def parse_get(lines: list[str]) -> DeviceView:
    """Read the reply to a get; AssertionError unless errno is 0."""
    device = DeviceView({}, {})
    peer: PeerView | None = None
    assert lines[-1] == "errno=0", lines[-1]
    for line in lines[:-1]:
        key, separator, value = line.partition("=")
        assert separator, f"no `=` in {key!r}"
        if key == "public_key":
            peer = device.peers.setdefault(value, PeerView())
        elif peer is None:
            device.values[key] = value
        elif key == "allowed_ip":
            peer.allowed_ips.append(value)
        else:
            peer.values[key] = value
    return device
