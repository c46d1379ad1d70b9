"""A UAPI socket that answers `get` with whatever a test wants shown, and writes down each `set`."""

import socket
import threading
from pathlib import Path

from tests.testbed.uapi import SOCKET_DIRECTORY


class FakeUapi:
    """One socket in the system directory, seen by `wg` and `wgdctl` alike; a context manager.

    `state` is the answer to a get without its errno line; `sets` are the requests without `set=1`
    and the blank line; `set_errno` is what a set is answered.
    """

    def __init__(self, name: str, state: str = "", directory: Path = SOCKET_DIRECTORY) -> None:
        self.name = name
        self.state = state
        self.sets: list[str] = []
        self.get_errno = 0
        self.set_errno = 0
        self._path = directory / f"{name}.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "FakeUapi":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Bound under another name: between bind and listen `wg` would take it for stale.
        temporary = self._path.with_suffix(".tmp")
        self._socket.bind(str(temporary))
        self._socket.listen(64)
        temporary.rename(self._path)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._path.unlink(missing_ok=True)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                client.settimeout(10)
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\n\n"):
            if not (chunk := client.recv(1 << 20)):
                return
            request += chunk
        if request.startswith(b"get=1\n"):
            client.sendall(f"{self.state}errno={self.get_errno}\n\n".encode())
        else:
            self.sets.append(request.decode().removeprefix("set=1\n").removesuffix("\n"))
            client.sendall(f"errno={self.set_errno}\n\n".encode())
