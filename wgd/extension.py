"""The extension `wgd_native`: whether it is here, and belongs to this wgd.

It has the native data plane and the native primitives of handshakes; each has a twin in Python.
"""

import sys
from types import ModuleType
from typing import Final, NamedTuple

from wgd import __version__

INTERFACE_VERSION: Final = 3
"""What `wgd_native.INTERFACE_VERSION` must be: that of native/wgd_native.pyi."""

_REINSTALL: Final = "pip install --force-reinstall ./native"


class Obstacle(NamedTuple):
    """Why the extension cannot be used, and what helps.

    `is_broken` if it is here, and whoever installed it will want to know.
    """

    reason: str
    cure: str
    is_broken: bool = False


def find_extension() -> ModuleType | Obstacle:
    """Return `wgd_native`, or what keeps us from using it."""
    if sys.platform != "linux":
        return Obstacle("it runs on Linux only", "use --dataplane portable")
    try:
        import wgd_native
    except ModuleNotFoundError as error:
        if error.name != "wgd_native":
            raise
        return Obstacle("wgd-native is not installed", "pip install ./native")
    except ImportError as error:
        return Obstacle(f"wgd-native cannot be loaded ({error})", _REINSTALL, is_broken=True)
    found = getattr(wgd_native, "INTERFACE_VERSION", None)
    if found != INTERFACE_VERSION:
        return Obstacle(
            f"wgd-native {getattr(wgd_native, '__version__', '')} does not fit wgd {__version__}"
            f" (its interface is {found}, not {INTERFACE_VERSION})",
            _REINSTALL,
            is_broken=True,
        )
    return wgd_native
