"""Proves that macOS is chosen in one place, loads nothing of Linux, and is put together right."""

import asyncio
import errno
import plistlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wgd import darwin_platform, platforms
from wgd.cli import main
from wgd.darwin_platform import DarwinPlatform
from wgd.dataplane.choice import Choice
from wgd.errors import WgdError
from wgd.net import darwin_udp
from wgd.tun.darwin import DarwinTun

ROOT = Path(__file__).parents[2]

LIKE_MACOS = """
import asyncio, importlib.abc, os, sys
import uvloop, cryptography, nacl.bindings  # the libraries of this machine, before it changes
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pytun", "pyroute2", "wgd_native"):
            raise ImportError(f"{name} is for Linux")
sys.meta_path.insert(0, Blocked())
sys.platform = "darwin"
for name in ("eventfd", "O_PATH", "setns"):
    if hasattr(os, name):
        delattr(os, name)
import wgd.cli, wgd.daemon, wgd.platforms
from wgd.dataplane.choice import DataPlaneOptions, choose
choice = choose(DataPlaneOptions())
print(type(wgd.platforms.this_platform(choice)).__name__, choice.is_native)
from wgd.dataplane.wakeup import Wakeup
wakeup = Wakeup(); wakeup.set(); wakeup.clear(); wakeup.close()
linux = [name for name in sys.modules if name in (
    "wgd.net.netlink", "wgd.net.link", "wgd.net.routes", "wgd.net.udp", "wgd.net.namespaces",
    "wgd.tun.linux", "wgd.uapi.inotify", "wgd.linux_platform", "pytun", "pyroute2")]
print(linux)
"""


def test_on_macos_nothing_of_linux_is_loaded() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIKE_MACOS], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["DarwinPlatform False", "[]"]


def test_on_linux_nothing_of_macos_is_loaded() -> None:
    program = (
        "import sys, wgd.daemon, wgd.platforms\n"
        "from wgd.dataplane.choice import Choice\n"
        "print(type(wgd.platforms.this_platform(Choice(is_native=False))).__name__)\n"
        "print([name for name in sys.modules if 'darwin' in name and name.startswith('wgd')])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.splitlines() == ["LinuxPlatform", "[]"], ran.stderr


def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "sunos5")
    with pytest.raises(WgdError, match="wgd does not run on sunos5: use Linux or macOS"):
        platforms.this_platform(Choice(is_native=False))


class FakeTun:
    def interface_index(self) -> int:
        return 20


class FakeWatcher:
    def __init__(self, loop: object, index: int, on_change: Callable[[], None]) -> None:
        self.index = index
        self.suspect = on_change


def test_failing_sends_reach_the_network_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    def create(name: str) -> FakeTun:
        made["name"] = name
        return FakeTun()

    def from_fd(fd: int) -> FakeTun:
        made["fd"] = fd
        return FakeTun()

    def open_sockets(port: int, failures: object) -> tuple[list[Any], int]:
        made["failures"] = failures
        return [], port

    monkeypatch.setattr(DarwinTun, "create", create)
    monkeypatch.setattr(DarwinTun, "from_fd", from_fd)
    monkeypatch.setattr(darwin_udp, "open_sockets", open_sockets)
    monkeypatch.setattr(darwin_platform, "NetworkWatcher", FakeWatcher)
    platform = DarwinPlatform()
    platform.open_tun("utun7", None)
    platform.open_tun("utun", 5)
    assert (made["name"], made["fd"]) == ("utun7", 5)
    assert platform.open_sockets(51820, 0xCA6C) == ([], 51820)

    changes: list[str] = []
    loop = asyncio.new_event_loop()
    watcher = platform.watch_network(
        loop,
        on_routes_change=lambda: None,
        on_network_change=lambda: changes.append("changed"),
        on_wake=lambda: None,
        on_clone=lambda: None,
    )
    loop.close()
    assert isinstance(watcher, FakeWatcher)
    assert watcher.index == 20
    for _ in range(3):
        made["failures"].failed(OSError(errno.ENETUNREACH, ""))
    assert changes == ["changed"]


@pytest.mark.parametrize("path", sorted((ROOT / "packaging/launchd").glob("*.plist")), ids=str)
def test_the_launchd_files_parse_and_name_what_exists(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = plistlib.loads(path.read_bytes())
    assert job["Label"].startswith("com.wgd.")
    assert job["RunAtLoad"] is True
    program, *arguments = job["ProgramArguments"]
    if Path(program).name == "wgd":
        assert "--foreground" in arguments
        assert arguments[-1] == job["Label"].rpartition(".")[2]
        with pytest.raises(SystemExit) as caught:
            main([*arguments[:-1], "--help"])
        assert caught.value.code == 0
        assert "--foreground" in capsys.readouterr().out
    else:
        assert job["AbandonProcessGroup"] is True
        assert job["EnvironmentVariables"]["WG_QUICK_USERSPACE_IMPLEMENTATION"].endswith("/wgd")
