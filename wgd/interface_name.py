"""What an interface may be called: its name becomes a device name and a file name."""

import os
from typing import Final

from wgd.errors import WgdError

MAX_INTERFACE_NAME_SIZE: Final = 15
"""Bytes; IFNAMSIZ less its NUL."""


def check_interface_name(name: str) -> None:
    """Raise WgdError unless the kernel would take `name`, and a file could have it."""
    if not name.isprintable():  # nor is what was no UTF-8
        raise WgdError(f"interface name {name!a} has characters in it that cannot be shown")
    size = len(os.fsencode(name))
    if not name:
        raise WgdError("the interface name is empty: give one, such as wg0")
    if size > MAX_INTERFACE_NAME_SIZE:
        raise WgdError(
            f"interface name {name!r} is {size} bytes long: use at most {MAX_INTERFACE_NAME_SIZE}"
        )
    if name in (".", ".."):
        raise WgdError(f"interface name {name!r} is reserved: choose another, such as wg0")
    # The kernel takes a percent sign for the place of a number.
    if any(character in "/:%" or character.isspace() for character in name):
        raise WgdError(f"interface name {name!r} has one of / : % or a blank in it: leave it out")
