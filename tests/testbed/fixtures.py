"""The fixtures of the folders that test whole daemons; their conftest.py imports them."""

from collections.abc import Callable, Iterator

import pytest

from tests.testbed.bed import Testbed
from tests.testbed.engines import ENGINES, require_engine
from tests.testbed.requirements import require

_measurements: list[str] = []


@pytest.fixture
def testbed() -> Iterator[Testbed]:
    """A testbed for one test."""
    require()
    with Testbed() as bed:
        yield bed


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """An engine that moves packets: the test runs once for each."""
    require_engine(request.param)
    return str(request.param)


@pytest.fixture
def testbed_per_engine(engine: str) -> Iterator[Testbed]:
    """A testbed whose daemons use this engine."""
    require()
    with Testbed(environment={"WGD_DATAPLANE": engine}) as bed:
        yield bed


@pytest.fixture
def measured() -> Callable[[str], None]:
    """Call it with a line to be shown after the run, such as a time that was measured."""
    return _measurements.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the tests measured."""
    if _measurements:
        terminalreporter.section("measured")
        for line in _measurements:
            terminalreporter.write_line(line)
        _measurements.clear()
