"""What a bad network does to each datagram: decided here, sans-IO, from a seed.

One `Weather` is for one direction. `copies` says what becomes of a datagram: nothing at all (loss),
itself, twice itself, itself later, itself changed. Who carries datagrams does what it says.
"""

import random
from dataclasses import dataclass, fields

MILLISECOND_NS = 1_000_000


@dataclass(frozen=True)
class Faults:
    """How bad it is: the first four are shares (0 to 1) of all datagrams."""

    loss: float = 0
    duplication: float = 0
    reordering: float = 0
    """Of those that are held back, so that later ones overtake them."""
    corruption: float = 0
    """Of those in which one bit is turned, or which are cut short."""
    delay_ns: int = 0
    jitter_ns: int = 0
    """Added to the delay: anything from 0 to this."""
    held_back_ns: int = 10 * MILLISECOND_NS
    black_hole_above_bytes: int | None = None
    """Longer datagrams vanish, and nobody is told."""

    def __str__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        if not self.reordering:
            del shown["held_back_ns"]
        return " ".join(f"{name}={value}" for name, value in shown.items() if value) or "none"


@dataclass
class Fates:
    """How many datagrams met each fate; one may have met several."""

    seen: int = 0
    lost: int = 0
    duplicated: int = 0
    held_back: int = 0
    corrupted: int = 0
    swallowed: int = 0
    """By the black hole."""


class Weather:
    """The fate of the datagrams of one direction; `faults` may be replaced at any time."""

    def __init__(self, seed: int | str, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.fates = Fates()
        self._random = random.Random(seed)

    def copies(self, datagram: bytes) -> list[tuple[int, bytes]]:
        """Return what arrives of a datagram, each copy with its delay in nanoseconds."""
        faults, fates = self.faults, self.fates
        fates.seen += 1
        longest = faults.black_hole_above_bytes
        if longest is not None and len(datagram) > longest:
            fates.swallowed += 1
            return []
        if self._happens(faults.loss):
            fates.lost += 1
            return []
        if self._happens(faults.duplication):
            fates.duplicated += 1
            return [self._copy(datagram), self._copy(datagram)]
        return [self._copy(datagram)]

    def _copy(self, datagram: bytes) -> tuple[int, bytes]:
        delay_ns = self.faults.delay_ns
        if self.faults.jitter_ns:
            delay_ns += self._random.randrange(self.faults.jitter_ns + 1)
        if self._happens(self.faults.reordering):
            self.fates.held_back += 1
            delay_ns += self.faults.held_back_ns
        if self._happens(self.faults.corruption):
            self.fates.corrupted += 1
            datagram = self._corrupted(datagram)
        return delay_ns, datagram

    def _corrupted(self, datagram: bytes) -> bytes:
        changed = bytearray(datagram)
        if self._random.random() < 0.1:
            return bytes(changed[: self._random.randrange(len(changed) + 1)])
        if changed:
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _happens(self, share: float) -> bool:
        # Nothing is drawn for what cannot be: so one fault does not change the course of another.
        return share > 0 and self._random.random() < share
