"""What a fuzz target is, and how an input is taken apart.

A target is one function that takes any bytes, hands them to a parser of outside bytes, and asserts
what must be true of the result. Everything that runs it (atheris, the replay of the corpora,
coverage) calls it in the same way, so it must do the same at every call with the same input.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """`run` raises for a find. `modules` are those under test, whose coverage is reported; `seeds`
    gives real inputs, and `words` what the mutator puts in. `max_size` bounds an input in bytes.
    """

    name: str
    run: Callable[[bytes], None]
    modules: tuple[str, ...]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    max_size: int = 4096
    needs_native: bool = False
    """Whether it compares with the native engine."""


class Input:
    """Bytes taken from the front; zeros, and nothing, when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def take(self, size: int) -> bytes:
        """Take at most `size` bytes."""
        taken = self._data[self._position : self._position + size]
        self._position += size
        return taken

    def byte(self) -> int:
        """Take a number in 0..255."""
        return int.from_bytes(self.take(1), "big")

    def number(self) -> int:
        """Take a number in 0..65535."""
        return int.from_bytes(self.take(2), "big")

    def choice(self, options: Sequence[T]) -> T:
        """Take one of at most 256 options."""
        return options[self.byte() % len(options)]

    def rest(self) -> bytes:
        """Take everything."""
        return self.take(len(self._data))

    def chunks(self) -> list[bytes]:
        """Take everything, cut at places that the first bytes decide."""
        step = self.byte()
        data = self.rest()
        if not step:
            return [data]
        sizes = [step, step % 7 + 1, step % 31 + 1]
        found: list[bytes] = []
        start = 0
        while start < len(data):
            size = sizes[len(found) % len(sizes)]
            found.append(data[start : start + size])
            start += size
        return found


class LogCheck(logging.Handler):
    """Renders every line that is logged, and lets none be more than one line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Check a record of ours."""
        if not record.name.startswith("wgd"):
            return
        text = record.getMessage()
        assert text.isprintable(), f"a log line holds what cannot be printed: {text!a}"


def check_logs() -> LogCheck:
    """Check all that is logged from now on."""
    check = LogCheck()
    logging.getLogger().addHandler(check)
    logging.getLogger("wgd").setLevel(logging.DEBUG)
    return check


def check_one_line(text: str) -> None:
    """Check a message for people: one line, nothing that moves a terminal's cursor."""
    assert text, "an error without words"
    assert text.isprintable(), f"not one printable line: {text!a}"
