"""The testbed as a fixture, and a doctor for its ends."""

from tests.testbed.fixtures import testbed

__all__ = ["testbed"]
