"""Killed at a random moment: the next start works, and after it nothing is left."""

from collections.abc import Iterator

import pytest

from tests.faults.kills import MOMENTS, Killer
from tests.quick.scene import Scene
from tests.testbed import Testbed, only_wgd

pytestmark = [pytest.mark.netns, only_wgd("nothing is left of it")]

SEED = 6


@pytest.fixture
def scene(testbed: Testbed) -> Iterator[Scene]:
    scene = Scene.build(testbed)
    yield scene
    scene.clear()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(scene: Scene, moment: str) -> None:
    killed = Killer(scene).kill_at(moment, SEED)
    print(killed)  # noqa: T201 - pytest shows it when the test fails
