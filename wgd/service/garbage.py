"""Spares the garbage collector what lives for long: else it stops everything for 0.3 s at a time.

Python looks for cycles in all that lives whenever a quarter more has come to live: with 65,536
peers that is a million objects. A configuration has no cycles, before, in or after use; it goes by
reference counts alone. So whatever the process has grown by is frozen as it comes (`gc.freeze`,
which takes no time) and not looked at again. The collector stays on for the rest, which is small.

What is in a cycle at the moment it is frozen, a client's connection perhaps, is not found when it
dies. That is a few KiB for `GROWTH_BLOCKS` that were added; when the process has become small
again, even that is looked at.
"""

import gc
import sys
from typing import Final

GROWTH_BLOCKS: Final = 20_000
"""Python objects, roughly: to look at so many takes the collector 5 ms."""


class LongLived:
    """What is frozen in this process, which is ours: another program may count on the collector."""

    def __init__(self) -> None:
        self._small_blocks = 0
        """What there was at the start: more may have been loaded since, but not five times as much
        as is frozen at a time."""
        self._seen_blocks = 0
        self._has_grown = False

    def __enter__(self) -> None:
        """Freeze what there is, and from now on what comes."""
        gc.freeze()
        self._small_blocks = self._seen_blocks = sys.getallocatedblocks()
        gc.callbacks.append(self._after_collection)

    def __exit__(self, *_exception: object) -> None:
        """Leave everything to the collector again."""
        gc.callbacks.remove(self._after_collection)
        gc.unfreeze()

    def _after_collection(self, phase: str, details: dict[str, int]) -> None:
        if phase != "stop" or details["generation"] == 0:
            return
        blocks = sys.getallocatedblocks()
        if blocks > self._seen_blocks + GROWTH_BLOCKS:
            gc.freeze()
            self._seen_blocks = blocks
            self._has_grown = True
        elif blocks < self._seen_blocks:
            self._seen_blocks = blocks
            if self._has_grown and blocks < self._small_blocks + 5 * GROWTH_BLOCKS:
                self._has_grown = False
                gc.unfreeze()
