"""Import now what the daemon would import later, because later it may not be able to.

What is slow to import waits until it is needed. Another user may not be able to read where Python
or wgd is installed (below /root, say), and whoever replaces the files of a running daemon should
not change it half-way. So before it changes the user, the daemon imports the rest.
"""

import importlib
import sys
from typing import Final

from wgd.errors import WgdError

_ANYWHERE: Final = (
    "concurrent.futures.thread",  # asyncio's and ours
    "encodings.idna",  # socket.getaddrinfo
    "nacl.bindings",
    "nacl.exceptions",
    "traceback",
)
_LINUX: Final = (
    "pyroute2.netlink.rtnl.marshal",
    "pyroute2.netlink.rtnl.fibmsg",
    "pyroute2.netlink.rtnl.ifaddrmsg",
    "pyroute2.netlink.rtnl.ifinfmsg",
    "pyroute2.netlink.rtnl.nsidmsg",
    "pyroute2.netlink.rtnl.rtmsg",
)


def import_rest(*more: str) -> None:
    """Import what is imported late, and `more`: what the daemon's options will need later.

    Takes a third of a second. Raises WgdError when a package is missing or broken.
    """
    for name in (*_ANYWHERE, *(_LINUX if sys.platform == "linux" else ()), *more):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise WgdError(f"cannot import {name}: {error}; install wgd's dependencies") from error
