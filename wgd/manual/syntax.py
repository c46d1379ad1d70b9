"""What a program takes on its command line, as data: for its usage, its manual and the shells."""

from dataclasses import dataclass
from enum import Enum, auto


class Takes(Enum):
    """What a word of the command line is, as far as a shell can complete it."""

    ANYTHING = auto()
    """Nothing to offer: an address, a number."""
    FILE = auto()
    DIRECTORY = auto()
    USER = auto()
    GROUP = auto()
    INTERFACE = auto()
    """An interface that a daemon serves now."""
    CONFIGURATION = auto()
    """A name with a file in /etc/wireguard, or a file NAME.conf."""
    NEW_INTERFACE = auto()
    """A name with a file in /etc/wireguard."""
    PEER = auto()
    """The public key of a peer of the interface that was named first."""


@dataclass(frozen=True, slots=True)
class Value:
    """One word: its name in a synopsis, what it is, and words that may stand there, too."""

    name: str
    takes: Takes = Takes.ANYTHING
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An option, with its names; without a value it is a switch."""

    names: tuple[str, ...]
    summary: str
    value: Value | None = None


@dataclass(frozen=True, slots=True)
class Keyword:
    """A word like `listen-port` in `wg set`, that stands before its value (or none)."""

    name: str
    value: Value | None = None
    of_peer: bool = False
    """Only after `peer <key>`."""


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One subcommand. The last of `operands` may be repeated if `repeats`; `keywords` follow."""

    name: str
    synopsis: str
    summary: str
    operands: tuple[Value, ...] = ()
    repeats: bool = False
    options: tuple[Option, ...] = ()
    keywords: tuple[Keyword, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """A program: its own options, then either operands or a subcommand."""

    name: str
    options: tuple[Option, ...]
    operands: tuple[Value, ...] = ()
    subcommands: tuple[Subcommand, ...] = ()
