"""The engines that take the conformance suite."""

from collections.abc import Callable, Iterator

import pytest

from tests.dataplane.lab import Lab

LABS: dict[str, Callable[[], Lab]] = {"portable": Lab}


@pytest.fixture(params=LABS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    made = LABS[request.param]()
    yield made
    made.close()
