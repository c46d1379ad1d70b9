"""Network namespaces for tests marked `netns`; what such tests need, or why they cannot run."""

from collections.abc import Callable, Iterator

import pytest

from tests.testbed.namespaces import Namespace, unique_name
from tests.testbed.requirements import require

MakeNamespace = Callable[[], Namespace]


@pytest.fixture(autouse=True)
def _requirements(request: pytest.FixtureRequest) -> None:
    """Skip a test marked `netns` where it cannot run; in CI (CI=true) it fails instead."""
    if request.node.get_closest_marker("netns") is not None:
        require()


@pytest.fixture
def make_netns(_requirements: None) -> Iterator[MakeNamespace]:
    """Makes network namespaces with unique names; all are removed after the test."""
    made: list[Namespace] = []

    def make() -> Namespace:
        made.append(Namespace(unique_name("wgd")))
        return made[-1]

    yield make
    for namespace in reversed(made):
        if namespace.path.exists():
            namespace.delete()


@pytest.fixture
def netns(make_netns: MakeNamespace) -> Namespace:
    """One network namespace with its loopback up, removed after the test."""
    return make_netns()
