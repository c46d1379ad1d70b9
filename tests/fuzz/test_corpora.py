"""Every input that was kept still does what it must; and the targets themselves can fail."""

import pytest

from tests.fuzz import corpus, reach
from tests.fuzz.guided import kept_and_seeds
from tests.fuzz.target import Input
from tests.fuzz.targets import TARGETS
from tests.testbed.engines import NATIVE, require_engine

MAX_TOTAL_SIZE = 1_500_000
BY_NAME = {target.name: target for target in TARGETS}


@pytest.mark.parametrize("name", BY_NAME)
def test_kept_inputs(name: str) -> None:
    target = BY_NAME[name]
    if target.needs_native:
        require_engine(NATIVE)
    inputs = kept_and_seeds(target)
    assert inputs
    for data in inputs:
        try:
            target.run(data)
        except Exception as error:
            error.add_note(f"target {name}, input {corpus.name_of(data)}: {data!r}")
            raise


def test_the_corpora_are_small_and_named_after_their_content() -> None:
    total = 0
    places = (corpus.DIRECTORY, corpus.FINDS, corpus.NATIVE_DIRECTORY, corpus.NATIVE_FINDS)
    for directory in places:
        for path in directory.glob("*/*"):
            data = path.read_bytes()
            assert path.name == corpus.name_of(data), path
            total += len(data)
    assert 0 < total < MAX_TOTAL_SIZE
    for directory in (corpus.DIRECTORY, corpus.FINDS):
        assert {path.name for path in directory.iterdir()} <= set(BY_NAME)


def test_an_input_is_taken_from_the_front_and_never_ends() -> None:
    given = Input(b"\1\2\3abc")
    assert (given.byte(), given.number(), given.take(2)) == (1, 0x203, b"ab")
    assert given
    assert given.rest() == b"c"
    assert not given
    assert (given.byte(), given.number(), given.take(9), given.rest()) == (0, 0, b"", b"")
    assert b"".join(Input(b"\5" + bytes(range(200))).chunks()) == bytes(range(200))
    assert len(Input(b"\5" + bytes(range(200))).chunks()) > 20


def test_fewest_keeps_what_reaches_more() -> None:
    target = BY_NAME["handshake_message"]
    inputs = [*target.seeds(), b"", b"x", b"y", b"z" * 100]
    few = reach.fewest(target, inputs)
    assert len(few) < len(inputs)
    assert reach.reached(target, few) == reach.reached(target, inputs) != set()
    assert reach.reached(target, few) <= reach.lines_of(target)
