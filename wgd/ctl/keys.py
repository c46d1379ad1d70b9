"""`genkey`, `genpsk`, `pubkey`, and the files that `set` takes keys from."""

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wgd.configuration import NO_KEY
from wgd.constants import KEY_SIZE
from wgd.ctl import values
from wgd.ctl.errors import UsageError, ValueTextError
from wgd.ctl.session import Session, warn
from wgd.noise.primitives import PrivateKey, clamp

_MAX_FILE_SIZE: Final = 4096
_TEXT_SIZE: Final = 44
_BLANKS: Final = " \t\n\v\f\r"


def genkey(words: Sequence[str], _session: Session) -> int:
    """Run `genkey`: print a new private key."""
    return _print_secret(words, clamp(os.urandom(KEY_SIZE)))


def genpsk(words: Sequence[str], _session: Session) -> int:
    """Run `genpsk`: print a new preshared key."""
    return _print_secret(words, os.urandom(KEY_SIZE))


def pubkey(words: Sequence[str], _session: Session) -> int:
    """Run `pubkey`: print the public key of the private key on stdin."""
    if words:
        raise UsageError("")
    text = sys.stdin.buffer.read(_MAX_FILE_SIZE).decode("ascii", "replace")
    public_key = PrivateKey(_key_in(text, "stdin")).public_key
    sys.stdout.write(values.base64_of(public_key) + "\n")
    return 0


def read_key_file(name: str) -> bytes:
    """Return the key in a file, or zeros for one that is empty, such as /dev/null.

    Raises ValueTextError, which never repeats what is in the file.
    """
    try:
        with Path(name).open(encoding="ascii", errors="replace") as file:
            text = file.read(_MAX_FILE_SIZE)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueTextError(f"cannot read a key from {_place(name)}: {reason}") from None
    return _key_in(text, _place(name)) if text else NO_KEY


def _place(name: str) -> str:
    is_key = len(name) == _TEXT_SIZE and name.endswith("=")
    return "a file whose name is a key: give the file that the key is in" if is_key else ascii(name)


def _key_in(text: str, place: str) -> bytes:
    if text[_TEXT_SIZE:].strip(_BLANKS):
        raise ValueTextError(f"there is more than a key in {place}: it must hold nothing else")
    try:
        return values.key(text[:_TEXT_SIZE])
    except ValueTextError as error:
        raise ValueTextError(f"there is no key in {place}: {error}") from None


def _print_secret(words: Sequence[str], key: bytes) -> int:
    if words:
        raise UsageError("")
    status = os.fstat(1)
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IRWXO:
        warn("others may read the file this is written to: set umask 077 and make the key again")
    sys.stdout.write(values.base64_of(key) + "\n")
    return 0
