"""What every subcommand is given: where to look, the environment, and a client made from them."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wgd import log_events
from wgd.ctl.values import EndpointReader
from wgd.uapi.client import Client

READ_TIMEOUT_SECONDS: Final = 15.0
"""For one device, so that a daemon that hangs does not keep the others from being shown."""

CONFIGURE_TIMEOUT_SECONDS: Final = 120.0
"""65,536 peers may take a daemon a while, and whoever waits can press Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of `wgdctl`; `directory` comes before every other place, None if there is none."""

    directory: Path | None
    bundle_ids: tuple[str, ...]
    environment: Mapping[str, str]

    def client(self, timeout_seconds: float = READ_TIMEOUT_SECONDS) -> Client:
        """Return a client that looks in every place."""
        return Client(
            directory=self.directory,
            bundle_ids=self.bundle_ids,
            timeout_seconds=timeout_seconds,
            environment=self.environment,
        )

    def endpoint_reader(self, warn: Callable[[str], None]) -> EndpointReader:
        """Return a reader of endpoints that waits for the resolver as the environment says."""
        return EndpointReader(self.environment, warn, time.sleep)

    def is_coloured(self) -> bool:
        """Whether stdout gets colours: a terminal, or as WG_COLOR_MODE says."""
        mode = self.environment.get("WG_COLOR_MODE", "")
        if mode in ("always", "never"):
            return mode == "always"
        return os.isatty(1)

    def hides_keys(self) -> bool:
        """Whether `show` for people hides keys: unless WG_HIDE_KEYS is `never`."""
        return self.environment.get("WG_HIDE_KEYS") != "never"


def warn(text: str) -> None:
    """Tell the user something that is no error."""
    sys.stderr.write(f"Warning: {text}\n")


def report(error: Exception) -> None:
    """Tell the user what went wrong; what others have written cannot steer the terminal."""
    sys.stderr.write(f"wgdctl: {log_events.printable(str(error))}\n")


def printable(path: Path) -> str:
    """Return a path fit for a terminal: it may hold anything but a NUL."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
