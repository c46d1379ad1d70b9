"""Talking to daemons and programs during a soak: UAPI, metrics, a program's stdin and stdout."""

import base64
import selectors
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from processes import BenchmarkError, run
from testbed import End

_TIMEOUT_SECONDS: Final = 10
_CONVERSATION_SECONDS: Final = 30
_REPOSITORY: Final = Path(__file__).resolve().parent.parent
_METRICS_DIRECTORY: Final = Path("/run/wgd")


def connected(end: End | Path) -> socket.socket:
    """Return a connection to an end's UAPI socket, or to another socket file."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(_TIMEOUT_SECONDS)
    try:
        client.connect(str(end.uapi_socket if isinstance(end, End) else end))
    except OSError:
        client.close()
        raise
    return client


def exchange(end: End, request: str) -> str:
    """Send a UAPI request and return the answer, up to its empty line or the connection's end."""
    with connected(end) as client:
        client.sendall(request.encode())
        answer = bytearray()
        while not answer.endswith(b"\n\n") and (received := client.recv(2**20)):
            answer += received
    return answer.decode()


def ask(end: End, request: str) -> str:
    """Return the answer to a UAPI request; raises BenchmarkError unless it ends with errno=0."""
    answer = exchange(end, request)
    if not answer.endswith("errno=0\n\n"):
        raise BenchmarkError(f"{end.interface} answered {answer[-40:]!r} to {request[:20]!r}…")
    return answer


def metrics_of(end: End) -> str:
    """Return what `--metrics unix` serves at this end; raises BenchmarkError if it does not."""
    with connected(_METRICS_DIRECTORY / f"{end.interface}.sock") as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: wgd\r\nConnection: close\r\n\r\n")
        answer = bytearray()
        while received := client.recv(2**20):
            answer += received
    if not answer.startswith(b"HTTP/1.1 200"):
        raise BenchmarkError(f"no metrics: {bytes(answer[:40])!r}")
    return answer.decode()


def public_key_of(end: End) -> str:
    """Return an end's public key in hex."""
    private_key = next(
        line.partition("=")[2]
        for line in ask(end, "get=1\n\n").splitlines()
        if line.startswith("private_key=")
    )
    in_base64 = base64.b64encode(bytes.fromhex(private_key)).decode()
    return base64.b64decode(run("wg", "pubkey", stdin=in_base64)).hex()


class Conversation:
    """A program spoken to in lines; leaving the context ends it."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._name = argv[0]
        self._child = subprocess.Popen(  # noqa: S603 - argument lists of our own, never a shell
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_REPOSITORY,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._child.kill()
        self._child.communicate()

    def say(self) -> None:
        """Send an empty line."""
        assert self._child.stdin is not None  # noqa: S101 - a pipe was asked for
        self._child.stdin.write(b"\n")
        self._child.stdin.flush()

    def lines_until(self, last: str) -> list[str]:
        """Return the lines that come before the line `last`; raises BenchmarkError otherwise."""
        assert self._child.stdout is not None  # noqa: S101 - a pipe was asked for
        deadline = time.monotonic() + _CONVERSATION_SECONDS
        text = b""
        end = f"{last}\n".encode()
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while not (text == end or text.endswith(b"\n" + end)):
                if not selector.select(max(0, deadline - time.monotonic())):
                    raise BenchmarkError(f"{self._name} did not get to {last!r}: {text[-80:]!r}")
                received = self._child.stdout.read1(2**16)  # type: ignore[attr-defined]
                if not received:
                    raise BenchmarkError(f"{self._name} ended early: {text[-80:]!r}")
                text += received
        return text[: -len(end)].decode().split()
