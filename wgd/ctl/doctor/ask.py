"""Asks the daemon in whatever way it can be asked, and reads the configuration file beside it."""

import errno
import ipaddress
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from wgd.addresses import Endpoint
from wgd.ctl import config_file
from wgd.ctl.doctor.facts import FilePeer, Source, Unseen
from wgd.ctl.doctor.rules.common import split_endpoint
from wgd.ctl.errors import ConfigFileError
from wgd.ctl.statuses import WatchError, of_other_daemon, watched_interface
from wgd.ctl.values import base64_of, prefix_text
from wgd.status import DeviceStatus
from wgd.uapi.client import Client, DeviceError

_NOT_A_STATUS: Final = (errno.EOPNOTSUPP, errno.EPROTO, errno.EIO, errno.EINVAL)
"""What other daemons answer, or what is made of their answers, when they are asked for it."""

_PORTS: Final = range(1 << 16)
_LONGEST_ZONE: Final = 15  # an interface's name
_LONGEST_INDEX: Final = 10

CONFIGURATION_DIRECTORY: Final = Path("/etc/wireguard")


def ask(
    interface: str, client: Client, unseen: list[Unseen]
) -> tuple[Source, DeviceStatus | None, DeviceError | None]:
    """Return what the daemon says, by its configuration socket or that for watching.

    Without an answer, also why; what could not be seen is added to `unseen`. Raises DeviceError if
    what it says cannot be.
    """
    try:
        status = client.status(interface)
    except DeviceError as error:
        refused = error
    else:
        return Source.STATUS, _checked(status), None
    if refused.errno in _NOT_A_STATUS:
        try:
            device = client.device(interface)
        except DeviceError as error:
            return Source.GET, None, error
        unseen.append(Unseen("what the daemon knows beyond `show`", "it is no wgd, or an old one"))
        status = replace(of_other_daemon(device, time.time_ns()), fwmark=device.fwmark)
        return Source.GET, status, None
    try:
        status = _checked(watched_interface(interface))
    except WatchError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
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


def _checked(status: DeviceStatus) -> DeviceStatus:
    """Return `status` if all its addresses are such: later they are taken for granted.

    Raises DeviceError.
    """
    try:
        for peer in status.peers:
            if peer.endpoint:
                _check_endpoint(peer.endpoint)
            for prefix in peer.allowed_ips:
                ipaddress.ip_network(prefix, strict=False)
    except ValueError as error:
        raise DeviceError(
            errno.EPROTO, f"{status.interface}: its status has an address that is none: {error}"
        ) from None
    return status


def _check_endpoint(endpoint: str) -> None:
    """Raise ValueError unless `endpoint` is a numeric address, a zone perhaps, and a port."""
    host, port = split_endpoint(endpoint)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{endpoint!a} has no numeric address") from None
    zone = endpoint.rpartition(":")[0].strip("[]").partition("%")[2]
    if not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) in _PORTS):
        raise ValueError(f"{endpoint!a} has no port")
    is_index = zone.isdigit() and len(zone) < _LONGEST_INDEX
    if not zone.isascii() or len(zone) > _LONGEST_ZONE or (zone.isdigit() and not is_index):
        raise ValueError(f"{endpoint!a} has no zone that can be")
