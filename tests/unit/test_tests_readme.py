"""The table of others' mistakes in tests/README.md names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_mistake_has_its_test() -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", (TESTS / "README.md").read_text())
    assert len(named) == 21
    for path, name in named:
        assert f"def {name}(" in (TESTS / path).read_text(), f"{path} has no {name}"
