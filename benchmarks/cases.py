"""What is compared under which circumstances, and in which order the rounds go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from family import Family
from implementations import Implementation
from workloads import Workload


@dataclass(frozen=True)
class Case:
    """A workload through a tunnel of this MTU, over and in this family: a line of the report."""

    workload: Workload
    mtu: int
    family: Family

    def __str__(self) -> str:
        return f"{self.workload.name}, MTU {self.mtu}, {self.family.value}"


def schedule(
    pairs: int, cases: Sequence[Case], implementations: Sequence[Implementation]
) -> Iterator[tuple[int, Case, Implementation]]:
    """Yield every round, as the pair's number (from 1), its case and its implementation.

    A pair is one round of every implementation, one after the other, with everybody first in turn:
    what changes on the machine meanwhile, or is warm from the round before, evens out.
    """
    for pair in range(1, pairs + 1):
        first = (pair - 1) % len(implementations)
        for case in cases:
            for implementation in (*implementations[first:], *implementations[:first]):
                yield pair, case, implementation
