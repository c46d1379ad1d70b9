"""Another extension in place of `wgd_native`, or none, for one test."""

import sys
from types import ModuleType

import pytest

from wgd.extension import INTERFACE_VERSION


def use_extension(
    monkeypatch: pytest.MonkeyPatch,
    engine: type | None,
    *,
    interface_version: int | None = INTERFACE_VERSION,
) -> None:
    """Let `import wgd_native` give a module with this `Engine`; None: fail as if not installed.

    An `interface_version` of None stands for an extension so old that it has none.
    """
    module = ModuleType("wgd_native")
    module.__dict__["Engine"] = engine
    module.__dict__["__version__"] = "9.8.7"
    if interface_version is not None:
        module.__dict__["INTERFACE_VERSION"] = interface_version
    monkeypatch.setitem(sys.modules, "wgd_native", module if engine else None)
    forget_face(monkeypatch)


def forget_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `wgd.dataplane.native` imported anew, now and after the test."""
    # Set before it is deleted: only so will what the test imports not outlive it.
    monkeypatch.setitem(sys.modules, "wgd.dataplane.native", ModuleType("forgotten"))
    del sys.modules["wgd.dataplane.native"]
