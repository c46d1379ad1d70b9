"""The collector is spared what lives long, and still finds what is in cycles."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from wgd.service.garbage import LongLived


class Node:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def sparing() -> Iterator[None]:
    gc.collect()
    with LongLived():
        yield
    gc.collect()


def test_what_the_process_grows_by_is_frozen_as_it_comes() -> None:
    frozen = gc.get_freeze_count()
    grown = [[number] for number in range(100_000)]
    assert gc.get_freeze_count() - frozen > 50_000
    # Only what came last is looked at.
    assert len(gc.get_objects(generation=2)) < 50_000
    assert len(grown) == 100_000


def test_cycles_are_still_found() -> None:
    gone = weakref.ref(Node())
    gc.collect()
    assert gone() is None


def test_what_was_frozen_is_looked_at_again_when_it_is_gone() -> None:
    node = Node()
    gone = weakref.ref(node)
    grown = [[number] for number in range(100_000)]
    del node
    gc.collect()
    assert gone() is not None, "it was frozen"
    grown.clear()
    gc.collect(1)
    gc.collect()
    assert gone() is None
