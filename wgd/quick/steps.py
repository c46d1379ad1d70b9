"""The changes to the system, each with what it takes to undo it.

A step is plain data, so that the journal can hold it. `undo` may be called whether the step was
done, done in part or not at all, and again: it takes away exactly what `do` adds, if it is there.
"""

import contextlib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from wgd.quick.errors import QuickError
from wgd.quick.rtnetlink import MAIN_TABLE, Route, Rule
from wgd.quick.system import System

_SYSCTL_NAME: Final = re.compile(r"net/[\w/.-]+", re.ASCII)

_Rule = tuple[int, int, int, int | None, bool]


class Step(Protocol):
    """One change."""

    kind: ClassVar[str]

    def do(self, system: System) -> None:
        """Make the change. Raises QuickError and OSError."""

    def undo(self, system: System) -> None:
        """Take it back. Raises QuickError and OSError if that fails, not if there is nothing."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that needs no undoing, since it ends with the interface or was a hook."""

    kind: ClassVar[str] = "mark"
    name: str

    def do(self, system: System) -> None:
        """Do nothing."""

    def undo(self, system: System) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses with prefix lengths on an interface."""

    kind: ClassVar[str] = "addresses"
    interface: str
    addresses: tuple[str, ...]

    def do(self, system: System) -> None:
        """Add them in their order."""
        index = system.link(self.interface).index
        for text in self.addresses:
            address = ipaddress.ip_interface(text)
            system.say(f"ip -{address.version} address add {text} dev {self.interface}")
            try:
                with system.adding():
                    system.network.add_address(index, address)
            except OSError as error:
                raise QuickError(
                    f"cannot give {text} to {self.interface}: {error.strerror}"
                    f"{_ipv6_cure(address.version)}"
                ) from error

    def undo(self, system: System) -> None:
        """Take them away."""
        link = system.network.link(self.interface)
        if link is None:
            return
        for text in reversed(self.addresses):
            system.network.remove_address(link.index, ipaddress.ip_interface(text))


@dataclass(frozen=True, slots=True)
class LinkUp:
    """An interface that is up and has an MTU; `mtu_before` and `was_up` are what it was."""

    kind: ClassVar[str] = "link"
    interface: str
    mtu: int
    mtu_before: int
    was_up: bool

    def do(self, system: System) -> None:
        """Set the MTU and the interface up."""
        system.say(f"ip link set mtu {self.mtu} up dev {self.interface}")
        link = system.link(self.interface)
        try:
            system.network.set_link(link.index, mtu=self.mtu, is_up=True)
        except OSError as error:
            raise QuickError(
                f"cannot set {self.interface} up with MTU {self.mtu}: {error.strerror}"
            ) from error

    def undo(self, system: System) -> None:
        """Put back what was."""
        link = system.network.link(self.interface)
        if link is not None:
            is_up = None if self.was_up else False
            system.network.set_link(link.index, mtu=self.mtu_before, is_up=is_up)


@dataclass(frozen=True, slots=True)
class Routes:
    """Routes through an interface, in one table."""

    kind: ClassVar[str] = "routes"
    interface: str
    table: int
    networks: tuple[str, ...]

    def do(self, system: System) -> None:
        """Add them in their order."""
        index = system.link(self.interface).index
        for text in self.networks:
            network = ipaddress.ip_network(text)
            table = "" if self.table == MAIN_TABLE else f" table {self.table}"
            system.say(f"ip -{network.version} route add {text} dev {self.interface}{table}")
            try:
                with system.adding():
                    system.network.add_route(index, Route(network, self.table))
            except FileExistsError:
                raise QuickError(
                    f"table {self.table} has a route to {text} already: take one of the two away, "
                    "or say Table = off"
                ) from None
            except OSError as error:
                raise QuickError(
                    f"cannot add a route to {text} through {self.interface}: {error.strerror}"
                    f"{_ipv6_cure(network.version)}"
                ) from error

    def undo(self, system: System) -> None:
        """Take them away."""
        link = system.network.link(self.interface)
        if link is None:
            return
        for text in reversed(self.networks):
            system.network.remove_route(link.index, Route(ipaddress.ip_network(text), self.table))


@dataclass(frozen=True, slots=True)
class Rules:
    """Policy routing rules; each is the fields of a Rule."""

    kind: ClassVar[str] = "rules"
    rules: tuple[_Rule, ...]

    def do(self, system: System) -> None:
        """Add them in their order."""
        for rule in self._rules():
            system.say(f"ip -{rule.version} rule add {_text(rule)}")
            with system.adding():
                system.network.add_rule(rule)

    def undo(self, system: System) -> None:
        """Take them away."""
        for rule in reversed(list(self._rules())):
            if system.network.remove_rule(rule):
                system.say(f"ip -{rule.version} rule delete {_text(rule)}")

    def _rules(self) -> Iterator[Rule]:
        return (Rule(*fields) for fields in self.rules)


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A sysctl of the network, named with slashes; `before` is what it was.

    Raises ValueError for another name, which a journal may have: it becomes a path.
    """

    kind: ClassVar[str] = "sysctl"
    name: str
    value: str
    before: str

    def __post_init__(self) -> None:
        if not _SYSCTL_NAME.fullmatch(self.name) or ".." in self.name:
            raise ValueError(f"sysctl {self.name!r}")

    def do(self, system: System) -> None:
        """Set it; where that is not allowed, say so and go on."""
        if system.sysctl(self.name) == self.value:
            return
        dotted = self.name.replace("/", ".")
        system.say(f"sysctl -q {dotted}={self.value}")
        try:
            system.set_sysctl(self.name, self.value)
        except OSError as error:
            system.warn(
                f"cannot set {dotted}={self.value}: {error.strerror}; with strict reverse path "
                "filtering, set it by other means"
            )

    def undo(self, system: System) -> None:
        """Put back what was, if it is still what we set."""
        if system.sysctl(self.name) == self.value != self.before:
            with contextlib.suppress(PermissionError):
                system.set_sysctl(self.name, self.before)


def _text(rule: Rule) -> str:
    if rule.only_specific:
        return "table main suppress_prefixlength 0"
    return f"not fwmark {rule.not_fwmark} table {rule.table}"


def _ipv6_cure(version: int) -> str:
    return "; for IPv6 see that sysctl net.ipv6.conf.default.disable_ipv6 is 0" * (version == 6)
