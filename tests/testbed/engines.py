"""The engines that carry packets; what runs once per engine, and when one may be missing."""

import importlib.util
import os

import pytest

from tests.testbed.daemons import OTHER_DAEMON

PORTABLE, NATIVE = "portable", "native"
ENGINES = (PORTABLE, NATIVE)


def require_engine(name: str) -> None:
    """Skip the test if the engine is not there; fail where CI=true or WGD_REQUIRE_NATIVE=1."""
    if name != PORTABLE and name not in engines_here():
        pytest.skip(f"needs {_missing()}")


def engines_here() -> tuple[str, ...]:
    """Return the engines that are there; fail the test if one must be and is not."""
    missing = _missing()
    if missing is None:
        return ENGINES
    if OTHER_DAEMON is None and (
        os.environ.get("CI") == "true" or os.environ.get("WGD_REQUIRE_NATIVE") == "1"
    ):
        pytest.fail(f"here this must run, but it needs {missing}", pytrace=False)
    return (PORTABLE,)


def _missing() -> str | None:
    if OTHER_DAEMON is not None:
        return "wgd's choice of engines"
    if importlib.util.find_spec("wgd_native") is None:
        return "wgd-native: pip install ./native"
    return None
