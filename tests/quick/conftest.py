"""The testbed, and the scene of these tests, as fixtures."""

from collections.abc import Iterator

import pytest

from tests.quick.scene import Scene
from tests.testbed import Testbed, require


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    """A scene for all tests of a file: each leaves it as it was, which is what they test."""
    require("wg-quick", "nft")
    with Testbed() as bed:
        yield Scene.build(bed)


@pytest.fixture
def scene(stage: Scene) -> Iterator[Scene]:
    """The scene, cleared after each test."""
    yield stage
    stage.clear()
