"""The testbed as fixtures."""

from tests.testbed.fixtures import (
    engine,
    measured,
    pytest_terminal_summary,
    testbed,
    testbed_per_engine,
)

__all__ = ["engine", "measured", "pytest_terminal_summary", "testbed", "testbed_per_engine"]
