"""The testbed as fixtures, and both event loops."""

import asyncio
from collections.abc import Coroutine

import pytest
import uvloop

from tests.testbed.fixtures import measured, pytest_terminal_summary, testbed
from tests.watch.clients import Runs

__all__ = ["measured", "pytest_terminal_summary", "run", "testbed"]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runs:
    """Run a test's coroutine on this loop."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def run(test: Coroutine[None, None, None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await test

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(limited())

    return run
