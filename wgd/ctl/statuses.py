"""The status of a wgd over its socket for watching, `wgd --metrics unix`: no root is needed.

What answers there may be anybody's program: its answer is bounded in time and size, and whatever is
wrong with it is a WatchError.
"""

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Final

from wgd.configuration import NO_KEY
from wgd.ctl.values import base64_of
from wgd.errors import WgdError
from wgd.interface_name import check_interface_name
from wgd.status import DeviceStatus, PeerStatus, from_json
from wgd.uapi.client import Client, Device
from wgd.uapi.paths import connect_address
from wgd.watch.listener import RUN_DIRECTORY

TIMEOUT_SECONDS: Final = 5.0
MAX_STATUS_SIZE: Final = 64 << 20
"""Bytes of an answer: 100,000 peers."""

_SUFFIX: Final = ".sock"
_READ_SIZE: Final = 1 << 20


class WatchError(WgdError):
    """The status could not be read; the text says why, `__cause__` is what happened."""


def names(client: Client, run_directory: Path = RUN_DIRECTORY) -> list[str]:
    """Return the names of all devices, and of those that can only be watched."""
    found = dict.fromkeys(client.names())
    with contextlib.suppress(OSError):
        paths = [*run_directory.glob(f"*{_SUFFIX}"), *run_directory.glob(f"*/*{_SUFFIX}")]
        for name in sorted({path.stem for path in paths}):
            with contextlib.suppress(WgdError):
                check_interface_name(name)
                found[name] = None
    return list(found)


def watched_interface(
    name: str, run_directory: Path = RUN_DIRECTORY, timeout_seconds: float = TIMEOUT_SECONDS
) -> DeviceStatus:
    """Return what the wgd of an interface says of itself: root's, else another user's.

    Raises WatchError, of root's socket if that is there or none is.
    """
    usual = run_directory / f"{name}{_SUFFIX}"
    others: list[Path] = []
    with contextlib.suppress(OSError):
        paths = run_directory.glob(f"*/*{_SUFFIX}")  # a name may hold what means something to glob
        others = sorted(path for path in paths if path.stem == name)
    refusal: WatchError | None = None
    for path in (usual, *others):
        try:
            return watched_status(path, timeout_seconds)
        except WatchError as error:
            if refusal is None or isinstance(refusal.__cause__, FileNotFoundError):
                refusal = error
    raise refusal or WatchError(f"cannot ask {usual}")


def watched_status(path: Path, timeout_seconds: float = TIMEOUT_SECONDS) -> DeviceStatus:
    """Return what the daemon behind the socket `path` says of itself. Raises WatchError."""
    try:
        return from_json(json.loads(_ask(path, time.monotonic() + timeout_seconds)))
    except (OSError, ValueError, RecursionError, WgdError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise WatchError(f"cannot ask {path}: {reason}") from error


def of_other_daemon(device: Device, now_ns: int) -> DeviceStatus:
    """Return what a daemon's `get` tells of its status; `version` stays "". No secret comes along.

    Whether there is a session is guessed from the last handshake: it is good for three minutes.
    """
    return DeviceStatus(
        interface=device.name,
        now_ns=now_ns,
        public_key="" if device.public_key == NO_KEY else base64_of(device.public_key),
        listen_port=device.listen_port,
        is_up=True,
        peers=tuple(
            PeerStatus(
                public_key=base64_of(peer.public_key),
                endpoint="" if peer.endpoint is None else str(peer.endpoint),
                allowed_ips=tuple(map(str, peer.allowed_ips)),
                persistent_keepalive_seconds=peer.persistent_keepalive_seconds,
                has_preshared_key=peer.preshared_key != NO_KEY,
                has_session=now_ns - peer.last_handshake_ns < 180 * 10**9,
                last_handshake_ns=peer.last_handshake_ns,
                received_bytes=peer.received_bytes,
                sent_bytes=peer.sent_bytes,
            )
            for peer in device.peers
        ),
    )


def _ask(path: Path, deadline: float) -> bytearray:
    """Return the body of the answer, which is there by `deadline`, of `time.monotonic`.

    Raises OSError, WgdError, and ValueError for an answer that is too long or no success.
    """
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_rest(deadline))
        with connect_address(path) as address:
            sock.connect(address)
        # HTTP/1.0: one request, and the answer ends with the stream.
        sock.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        while data := sock.recv(_READ_SIZE):
            answer += data
            if len(answer) > MAX_STATUS_SIZE:
                raise ValueError("its answer is too long")
            sock.settimeout(_rest(deadline))
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(maxsplit=2)[1:2] != [b"200"]:
        raise ValueError("it did not answer with a status")
    return body


def _rest(deadline: float) -> float:
    if (rest := deadline - time.monotonic()) <= 0:
        raise TimeoutError("timed out")
    return rest
