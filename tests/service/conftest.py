"""The testbed, and a service manager's end of the notification socket, as fixtures."""

from collections.abc import Iterator

import pytest

from tests.service.manager import FakeManager
from tests.testbed.fixtures import (
    engine,
    measured,
    pytest_terminal_summary,
    testbed,
    testbed_per_engine,
)

__all__ = [
    "engine",
    "manager",
    "measured",
    "pytest_terminal_summary",
    "testbed",
    "testbed_per_engine",
]


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    """A service manager that does what systemd does with what it is told."""
    with FakeManager() as fake:
        yield fake
