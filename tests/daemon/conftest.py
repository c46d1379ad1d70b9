"""The testbed as fixtures."""

from tests.testbed.fixtures import measured, pytest_terminal_summary, testbed

__all__ = ["measured", "pytest_terminal_summary", "testbed"]
