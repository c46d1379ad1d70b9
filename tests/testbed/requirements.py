"""What this machine must have; elsewhere the tests say why they cannot run, in CI they fail."""

import os
import shutil
from pathlib import Path

import pytest


def _missing(tools: tuple[str, ...]) -> str | None:
    if os.geteuid() != 0:
        return "needs root (network namespaces)"
    if not Path("/dev/net/tun").is_char_device():
        return "needs /dev/net/tun"
    for tool in ("ip", "wg", "ping", *tools):
        if shutil.which(tool) is None:
            return f"needs the program {tool} on PATH"
    return None


def require(*tools: str) -> None:
    """Skip the test if something is missing, with the reason; fail where CI=true."""
    if (reason := _missing(tools)) is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI this must run, but it {reason}", pytrace=False)
    pytest.skip(reason)
