"""Asks the daemon in whatever way it can be asked, and reads the configuration file beside it."""

import contextlib
import errno
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from wgd.addresses import Endpoint
from wgd.ctl import config_file
from wgd.ctl.doctor.facts import FilePeer, Source, Unseen
from wgd.ctl.doctor.watcher import WatchError, watched_status
from wgd.ctl.errors import ConfigFileError
from wgd.ctl.top.sources import of_other_daemon
from wgd.ctl.values import base64_of, prefix_text
from wgd.errors import WgdError
from wgd.interface_name import check_interface_name
from wgd.status import DeviceStatus
from wgd.uapi.client import Client, DeviceError
from wgd.watch.listener import RUN_DIRECTORY

_NOT_A_STATUS: Final = (errno.EOPNOTSUPP, errno.EPROTO, errno.EIO, errno.EINVAL)
"""What other daemons answer, or what is made of their answers, when they are asked for it."""

CONFIGURATION_DIRECTORY: Final = Path("/etc/wireguard")


def interfaces(client: Client) -> list[str]:
    """Return the names of all devices, and of those that can only be watched."""
    found = dict.fromkeys(client.names())
    with contextlib.suppress(OSError):
        for path in sorted(RUN_DIRECTORY.glob("*.sock")):
            with contextlib.suppress(WgdError):
                check_interface_name(path.stem)
                found[path.stem] = None
    return list(found)


def ask(
    interface: str, client: Client, unseen: list[Unseen]
) -> tuple[Source, DeviceStatus | None, DeviceError | None]:
    """Return what the daemon says, by its configuration socket or that for watching.

    Without an answer, also why; what could not be seen is added to `unseen`.
    """
    try:
        return Source.STATUS, client.status(interface), None
    except DeviceError as error:
        refused = error
    if refused.errno in _NOT_A_STATUS:
        try:
            device = client.device(interface)
        except DeviceError as error:
            return Source.GET, None, error
        unseen.append(Unseen("what the daemon knows beyond `show`", "it is no wgd, or an old one"))
        status = replace(of_other_daemon(device, time.time_ns()), fwmark=device.fwmark)
        return Source.GET, status, None
    path = RUN_DIRECTORY / f"{interface}.sock"
    try:
        status = watched_status(path)
    except WatchError as error:
        if path.exists():
            unseen.append(Unseen("the socket for watching", str(error)))
        return Source.WATCH, None, refused
    unseen.append(Unseen("the configuration socket", str(refused)))
    return Source.WATCH, status, None


def read_file(
    interface: str, file: Path | None, unseen: list[Unseen]
) -> tuple[str, tuple[FilePeer, ...]]:
    """Return the configuration file's name and its peers, "" and none without a file.

    Raises ConfigFileError if the user has named it and it cannot be read.
    """
    path = file or CONFIGURATION_DIRECTORY / f"{interface}.conf"
    try:
        return str(path), tuple(file_peers(path.read_bytes()))
    except (OSError, ConfigFileError) as error:
        reason = str(error.strerror if isinstance(error, OSError) else error)
        if file is not None:
            raise ConfigFileError(f"cannot read {str(file)!a}: {reason}") from None
        if not isinstance(error, FileNotFoundError):
            unseen.append(Unseen(str(path), reason))
        return "", ()


def file_peers(text: bytes) -> Iterator[FilePeer]:
    """Yield the peers of a file of wg or wg-quick; nothing else of it is looked at.

    Raises ConfigFileError.
    """
    wanted = (b"[", b"publickey", b"allowedips")
    lines = [line for line in text.split(b"\n") if line.strip().lower().startswith(wanted)]
    change = config_file.parse(
        b"\n".join(lines), read_endpoint=lambda _text: Endpoint("", 0), warn=lambda _text: None
    )
    for peer in change.peers:
        prefixes = tuple(prefix_text(each.prefix) for each in peer.allowed_ips if not each.remove)
        yield FilePeer(base64_of(peer.public_key), prefixes)
