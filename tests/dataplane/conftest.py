"""The engines that take the conformance suite."""

from collections.abc import Callable, Iterator

import pytest

from tests.dataplane.lab import Lab, NativeLab
from tests.testbed.engines import NATIVE, PORTABLE, require_engine

LABS: dict[str, Callable[[], Lab]] = {PORTABLE: Lab, NATIVE: NativeLab}


@pytest.fixture(params=LABS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    require_engine(request.param)
    made = LABS[request.param]()
    yield made
    made.close()
