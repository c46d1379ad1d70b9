"""`show` and `showconf`: what devices say about themselves, as `wg` prints it.

`show` without a field is for people (`pretty`), with one for scripts: a line for each device or
each of its peers, values separated by tabs, and with `all` the interface's name before them.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from wgd.constants import SECOND_NS
from wgd.ctl.config_file import render
from wgd.ctl.errors import UsageError
from wgd.ctl.json_view import to_json
from wgd.ctl.pretty import pretty
from wgd.ctl.session import Session, printable, report, warn
from wgd.ctl.values import (
    base64_of,
    endpoint_text,
    fwmark_text,
    keepalive_text,
    key_text,
    prefix_text,
)
from wgd.uapi.client import Device, DeviceError, Peer

_Field = Callable[[Device], Iterator[str]]


def show(words: Sequence[str], session: Session) -> int:
    """Run `show`; returns the exit status: 1 only if not one of the devices could be read."""
    rest = [word for word in words if word != "--json"]
    is_json = len(rest) != len(words)
    subject, field = (*rest, "", "")[:2]
    is_list = subject == "interfaces"
    if len(rest) > 2 or (field and (is_json or is_list)) or (is_json and is_list):
        raise UsageError("")
    if field and field not in FIELDS:
        raise UsageError(f"there is no field {field!a}")
    if is_list:
        return _interfaces(session)
    if subject in ("", "all"):
        return _all(session, field, is_json=is_json)
    device = session.client().device(subject)
    if is_json:
        sys.stdout.write(to_json([device]))
    elif field:
        sys.stdout.writelines(f"{line}\n" for line in FIELDS[field](device))
    else:
        sys.stdout.write(_pretty(device, session))
    return 0


def showconf(words: Sequence[str], session: Session) -> int:
    """Run `showconf`: print a device as a configuration file."""
    if len(words) != 1:
        raise UsageError("")
    sys.stdout.write(render(session.client().device(words[0])))
    return 0


def _interfaces(session: Session) -> int:
    if names := session.client().names():
        sys.stdout.write(" ".join(names) + "\n")
    return 0


def _all(session: Session, field: str, *, is_json: bool) -> int:
    """Show every device; one that cannot be read is told on stderr and hides no other one."""
    client = session.client()
    errors: list[DeviceError] = []
    devices = client.devices(on_error=lambda _, error: errors.append(error))
    if is_json:
        sys.stdout.write(to_json(devices))
    elif field:
        for device in devices:
            sys.stdout.write(_named(device, field))
    else:
        sys.stdout.write("\n".join(_pretty(device, session) for device in devices))
        for note in client.survey().notes:
            warn(f"skipped {printable(note.path)}: {note.reason}")
    for error in errors:
        report(error)
    return 1 if errors and not devices else 0


def _named(device: Device, field: str) -> str:
    """Return the lines of a field with the interface's name before each of them."""
    lines = [f"{line}\n" for line in FIELDS[field](device)]
    if field == "endpoints":
        # `wg` says the name once here, and even if there is no peer: scripts know it so.
        return f"{device.name}\t" + "".join(lines)
    return "".join(f"{device.name}\t{line}" for line in lines)


def _pretty(device: Device, session: Session) -> str:
    return pretty(
        device,
        now_seconds=int(time.time()),
        hides_keys=session.hides_keys(),
        is_coloured=session.is_coloured(),
    )


# -- the fields --------------------------------------------------------------------------------


def _of_device(value: Callable[[Device], str]) -> _Field:
    def lines(device: Device) -> Iterator[str]:
        yield value(device)

    return lines


def _of_peers(value: Callable[[Peer], str]) -> _Field:
    def lines(device: Device) -> Iterator[str]:
        for peer in device.peers:
            yield f"{base64_of(peer.public_key)}\t{value(peer)}"

    return lines


def _peers(device: Device) -> Iterator[str]:
    for peer in device.peers:
        yield base64_of(peer.public_key)


def _handshake_seconds(peer: Peer) -> str:
    return str(peer.last_handshake_ns // SECOND_NS)


def _prefixes(peer: Peer, separator: str) -> str:
    return separator.join(map(prefix_text, peer.allowed_ips)) or "(none)"


def _dump(device: Device) -> Iterator[str]:
    yield "\t".join(
        (
            key_text(device.private_key),
            key_text(device.public_key),
            str(device.listen_port),
            fwmark_text(device.fwmark),
        )
    )
    for peer in device.peers:
        yield "\t".join(
            (
                base64_of(peer.public_key),
                key_text(peer.preshared_key),
                endpoint_text(peer.endpoint),
                _prefixes(peer, ","),
                _handshake_seconds(peer),
                str(peer.received_bytes),
                str(peer.sent_bytes),
                keepalive_text(peer.persistent_keepalive_seconds),
            )
        )


FIELDS: Final[Mapping[str, _Field]] = {
    "public-key": _of_device(lambda device: key_text(device.public_key)),
    "private-key": _of_device(lambda device: key_text(device.private_key)),
    "listen-port": _of_device(lambda device: str(device.listen_port)),
    "fwmark": _of_device(lambda device: fwmark_text(device.fwmark)),
    "peers": _peers,
    "preshared-keys": _of_peers(lambda peer: key_text(peer.preshared_key)),
    "endpoints": _of_peers(lambda peer: endpoint_text(peer.endpoint)),
    "allowed-ips": _of_peers(lambda peer: _prefixes(peer, " ")),
    "latest-handshakes": _of_peers(_handshake_seconds),
    "transfer": _of_peers(lambda peer: f"{peer.received_bytes}\t{peer.sent_bytes}"),
    "persistent-keepalive": _of_peers(
        lambda peer: keepalive_text(peer.persistent_keepalive_seconds)
    ),
    "dump": _dump,
}
