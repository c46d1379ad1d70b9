"""The `control` message, wgd's own: its lines into a `ControlChange` and back (sans-IO).

    control=1
    log_level=verbose
    endpoint_host=<the peer's public key, 64 hexadecimal digits> vpn.example.org:51820

docs/uapi-extensions.md describes it for other programs.
"""

import errno
import re
from typing import Final

from wgd.configuration import LOG_LEVELS, ControlChange
from wgd.constants import KEY_SIZE
from wgd.errors import ConfigurationError
from wgd.shown import shown
from wgd.uapi import grammar

MAX_HOST_NAME_SIZE: Final = 253
"""Characters of a host name without the dot that may end it (RFC 1035, section 2.3.4)."""

_LABEL: Final = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(rb"(" + _LABEL + rb"(?:\." + _LABEL + rb")*)\.?:([0-9]+)")
_HOST_FORM: Final = "a host name, a colon and a port in 1..65535, such as vpn.example.org:51820"
_NAME: Final = re.compile(rb"[a-z_]{1,32}")


class ControlBody:
    """The lines of one control, collected into a `ControlChange`."""

    def __init__(self) -> None:
        self._log_level: str | None = None
        self._endpoint_hosts: list[tuple[bytes, str]] = []

    def take_line(self, line: bytes) -> None:
        """Take one line without its end.

        Raises ConfigurationError: EPROTO without `=`, EINVAL for a key or a value not understood.
        """
        key, equals, value = line.partition(b"=")
        if not equals:
            raise ConfigurationError(errno.EPROTO, "there is no '=' in it")
        match key:
            case b"log_level":
                self._log_level = _log_level(value)
            case b"endpoint_host":
                self._endpoint_hosts.append(_endpoint_host(value))
            case _:
                named = f" {key.decode('ascii')}" if _NAME.fullmatch(key) else ""
                raise ConfigurationError(errno.EINVAL, f"no setting{named} in a control")

    def finish(self) -> ControlChange:
        """Return what the lines said."""
        return ControlChange(self._log_level, tuple(self._endpoint_hosts))


def control_request(change: ControlChange) -> bytes:
    """Return the request for `change`. Raises ConfigurationError (EINVAL) for a bad value."""
    lines = [b"control=1\n"]
    if change.log_level is not None:
        _log_level(change.log_level.encode("ascii", "replace"))
        lines.append(f"log_level={change.log_level}\n".encode("ascii"))
    for public_key, host in change.endpoint_hosts:
        if len(public_key) != KEY_SIZE:
            raise _refused("the public key of an endpoint_host", f"{KEY_SIZE} bytes")
        line = f"{public_key.hex()} {host}".encode("ascii", "replace")
        _endpoint_host(line)
        lines.append(b"endpoint_host=%s\n" % line)
    lines.append(b"\n")
    return b"".join(lines)


def _log_level(value: bytes) -> str:
    name = value.decode("ascii", "replace")
    if name not in LOG_LEVELS:
        raise _refused("log_level", f"one of {', '.join(LOG_LEVELS)}, not {shown(value)}")
    return name


def _endpoint_host(value: bytes) -> tuple[bytes, str]:
    digits, _, host = value.partition(b" ")
    try:
        public_key = grammar.key(digits)
    except ValueError as expected:
        # Not shown: it may be another key that was put here.
        raise _refused("the public key of an endpoint_host", str(expected)) from None
    match = _HOST.fullmatch(host)
    if match is None or len(match[1]) > MAX_HOST_NAME_SIZE or not _is_port(match[2]):
        raise _refused("endpoint_host", f"{_HOST_FORM}, not {shown(host)}")
    return public_key, host.decode("ascii")


def _is_port(digits: bytes) -> bool:
    try:
        return grammar.port(digits) > 0
    except ValueError:
        return False


def _refused(name: str, expected: str) -> ConfigurationError:
    return ConfigurationError(errno.EINVAL, f"{name} must be {expected}")
