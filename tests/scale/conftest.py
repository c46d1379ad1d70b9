"""What the tests of whole daemons need."""

from tests.testbed.fixtures import testbed

__all__ = ["testbed"]
