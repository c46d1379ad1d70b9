"""A short run of everything finds nothing; a target that fails is told of, with its input."""

import sys
from pathlib import Path

import pytest

from tests.fuzz import guided
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="atheris has no wheel for this system"
)
SEED = 6
"""Always the same, so that nothing fails by chance. Long runs draw their own."""

EXECUTIONS = 1000
"""Of each target, kept inputs among them: most take a fraction of their second for that."""


@pytest.mark.parametrize("half", [0, 1])  # beside each other
def test_a_short_run_finds_nothing(tmp_path: Path, half: int) -> None:
    targets = TARGETS[half::2]
    runs = list(guided.run(targets, 1, SEED, tmp_path, EXECUTIONS))
    assert [run.name for run in runs] == [target.name for target in targets]
    for run in runs:
        assert not run.trouble, f"{run.name}: {run.trouble}"
        assert run.executions > 0, run
        assert run.edges > 1, run
