"""The status of a wgd over its socket for watching, `wgd --metrics unix`: no root is needed."""

import http.client
import json
import socket
from pathlib import Path
from typing import Final

from wgd.errors import WgdError
from wgd.status import DeviceStatus, from_json
from wgd.uapi.paths import connect_address

TIMEOUT_SECONDS: Final = 5.0
MAX_SIZE: Final = 256 * 1024 * 1024
"""Bytes of an answer: 65,536 peers with many allowed IPs stay far below."""

_HTTP_OK: Final = 200


class WatchError(WgdError):
    """The status could not be read; the text says why, and what to do."""


def watched_status(path: Path) -> DeviceStatus:
    """Return what the daemon behind the socket `path` says of itself. Raises WatchError."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        body = answer.read(MAX_SIZE)
        if answer.status != _HTTP_OK:
            raise WatchError(f"{path} answered {answer.status} {answer.reason}")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise WatchError(f"{path} did not answer with a status")
        return from_json(document)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise WatchError(f"cannot ask {path}: {reason}") from error
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_SECONDS)
        with connect_address(self._path) as address:
            self.sock.connect(address)
