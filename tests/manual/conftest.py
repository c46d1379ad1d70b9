"""A `wgdctl` that knows two interfaces, and the tools that the tests ask."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.testbed.fixtures import testbed

__all__ = ["testbed"]

KEY = "AAAA+b/cdefghijklmnopqrstuvwxyz0123456789ABC="
OTHER_KEY = "BBBB+b/cdefghijklmnopqrstuvwxyz0123456789ABC="

_WGDCTL = f"""#!/bin/sh
case "$*" in
    "show interfaces") echo "wg0 wg-home" ;;
    "show wg0 peers") echo {KEY}; echo {OTHER_KEY} ;;
    set*) printf 'SAID'; printf ' <%s>' "$@"; echo ;;
    *) exit 1 ;;
esac
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    path = tmp_path / "wgdctl"
    path.write_text(_WGDCTL)
    path.chmod(0o755)
    return tmp_path


@pytest.fixture
def need() -> Callable[[str], None]:
    """Skip the test if a program is missing; fail where CI=true."""

    def check(program: str) -> None:
        if shutil.which(program) is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"in CI this must run, but there is no {program}", pytrace=False)
            pytest.skip(f"needs the program {program} on PATH")

    return check
