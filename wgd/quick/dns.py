"""The DNS servers of an interface, given to resolvconf, or to systemd-resolved by resolvectl."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wgd.quick.config import QuickConfig
from wgd.quick.errors import QuickError
from wgd.quick.system import System

_ORDER = Path("/etc/resolvconf/interface-order")


def check_tool(config: QuickConfig, system: System) -> str:
    """Return the program that sets DNS here: resolvconf or resolvectl. Raises QuickError."""
    if system.has("resolvconf"):
        return "resolvconf"
    if system.has("resolvectl"):
        try:
            system.run("resolvectl", "--no-pager", "dns")
        except QuickError as error:
            raise QuickError(
                f"{config.path}: DNS cannot be set: {error}; start systemd-resolved, install "
                "openresolv, or take DNS out"
            ) from None
        return "resolvectl"
    raise QuickError(
        f"{config.path}: DNS cannot be set, because there is no resolvconf and no resolvectl: "
        "install openresolv or systemd-resolved, or take DNS out and set it by PostUp"
    )


@dataclass(frozen=True, slots=True)
class Dns:
    """Servers and search domains of an interface, in place of all others while it is up."""

    kind: ClassVar[str] = "dns"
    interface: str
    tool: str
    servers: tuple[str, ...]
    search: tuple[str, ...]

    def do(self, system: System) -> None:
        """Set them."""
        if self.tool == "resolvectl":
            for words in (
                ("dns", self.interface, *self.servers),
                ("domain", self.interface, *self.search, "~."),  # `~.`: whatever is looked up
                ("default-route", self.interface, "yes"),
            ):
                system.say(" ".join(("resolvectl", *words)))
                system.run("resolvectl", *words)
            return
        text = "".join(f"nameserver {server}\n" for server in self.servers)
        if self.search:
            text += f"search {' '.join(self.search)}\n"
        name = f"{_prefix()}{self.interface}"
        system.say(f"resolvconf -a {name} -m 0 -x")
        system.run("resolvconf", "-a", name, "-m", "0", "-x", stdin=text)

    def undo(self, system: System) -> None:
        """Forget them."""
        if self.tool == "resolvectl":
            # It forgets by itself what an interface had that is gone.
            if system.network.link(self.interface) is not None:
                system.say(f"resolvectl revert {self.interface}")
                system.run("resolvectl", "revert", self.interface)
            return
        system.say(f"resolvconf -d {_prefix()}{self.interface} -f")
        system.run("resolvconf", "-d", f"{_prefix()}{self.interface}", "-f")


def _prefix() -> str:
    """Return what Debian's resolvconf wants before a name, for it to come first."""
    try:
        order = _ORDER.read_text("utf-8", "replace")
    except OSError:
        return ""
    match = re.search(r"^([A-Za-z0-9-]+)\*$", order, re.MULTILINE)
    return f"{match[1]}." if match else ""
