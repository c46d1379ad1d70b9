"""What all tests of the targets need."""

import logging
from collections.abc import Iterator

import pytest

from tests.fuzz.target import check_logs


@pytest.fixture(autouse=True)
def checked_logs() -> Iterator[None]:
    """Check every line that is logged, as the fuzzing engine does."""
    level = logging.getLogger("wgd").level
    check = check_logs()
    yield
    logging.getLogger().removeHandler(check)
    logging.getLogger("wgd").setLevel(level)
