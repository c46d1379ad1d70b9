"""Another extension in place of `wgd_native`, or none, for one test."""

import sys
from types import ModuleType

import pytest


def use_extension(monkeypatch: pytest.MonkeyPatch, engine: type | None) -> None:
    """Let `import wgd_native` give a module with this `Engine`; None: fail as if not installed."""
    module = ModuleType("wgd_native")
    module.__dict__["Engine"] = engine
    monkeypatch.setitem(sys.modules, "wgd_native", module if engine else None)
    forget_face(monkeypatch)


def forget_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `wgd.dataplane.native` imported anew, now and after the test."""
    # Set before it is deleted: only so will what the test imports not outlive it.
    monkeypatch.setitem(sys.modules, "wgd.dataplane.native", ModuleType("forgotten"))
    del sys.modules["wgd.dataplane.native"]
