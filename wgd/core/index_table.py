"""Receiver indices: 32-bit numbers that name a handshake or keypair of ours on the wire.

Drawn at random, so that they tell nothing about how many sessions there are, and unique among the
live ones (paper, section 5.4.2).
"""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class IndexTable(Generic[T]):
    """Maps each live receiver index to its owner."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._owners: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def allocate(self, owner: T) -> int:
        """Return an unused random index that now belongs to `owner`."""
        while True:
            index = int.from_bytes(self._random(4), "little")
            if index not in self._owners:
                self._owners[index] = owner
                return index

    def owner(self, index: int) -> T | None:
        """Return whose index this is, or None."""
        return self._owners.get(index)

    def free(self, indices: Iterable[int]) -> None:
        """Let these indices be drawn again."""
        for index in indices:
            self._owners.pop(index, None)
