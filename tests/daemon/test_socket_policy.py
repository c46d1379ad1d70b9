"""Where a running daemon puts its socket, and that `wgdctl` finds it there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed import Testbed, only_wgd, wait_until
from tests.testbed.daemons import Program

pytestmark = [pytest.mark.netns, only_wgd("a socket policy")]

CONTAINER = Path("Library/Containers/com.wireguard.macos.network-extension/Data")


def wgdctl(home: Path, *arguments: str) -> str:
    """Run `wgdctl` with this HOME and return its stdout."""
    environment = {**os.environ, "HOME": str(home)}
    environment.pop("SUDO_USER", None)
    return subprocess.run(
        [sys.executable, "-m", "wgd.ctl", *arguments],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.fixture(params=["user", "u" * 60])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A home with a container in it; a user name of sixty letters makes the path too long."""
    directory = tmp_path / "Users" / str(request.param)
    (directory / CONTAINER).mkdir(parents=True)
    return directory


def start(testbed: Testbed, name: str, *options: str, **environment: str) -> Program:
    program = testbed.run_program(
        testbed.namespace(), *options, name, environment={"LOG_LEVEL": "verbose", **environment}
    )
    assert program.launched().returncode == 0, program.output
    return program


def test_a_sandboxed_tunnel_and_a_system_one_in_one_listing(testbed: Testbed, home: Path) -> None:
    inside, outside = testbed.interface_name(), testbed.interface_name()
    start(testbed, inside, HOME=str(home / CONTAINER))
    start(testbed, outside, HOME=str(home))
    socket_file = home / CONTAINER / f"{inside}.sock"
    assert socket_file.is_socket()
    assert not Path(f"/var/run/wireguard/{inside}.sock").exists()
    names = wgdctl(home, "show", "interfaces").split()
    assert {inside, outside} <= set(names)
    for name, port in ((inside, "50001"), (outside, "50002")):
        wgdctl(home, "set", name, "listen-port", port)
        assert wgdctl(home, "show", name, "listen-port") == f"{port}\n"
    assert str(socket_file) in wgdctl(home, "where")


def test_a_sandboxed_tunnel_goes_on_without_its_socket(testbed: Testbed, home: Path) -> None:
    name = testbed.interface_name()
    program = start(testbed, name, HOME=str(home / CONTAINER))
    (home / CONTAINER / f"{name}.sock").unlink()
    wait_until(lambda: "uapi_lost" in program.stdout, what="the loss is logged")
    assert program.is_running()


def test_a_sandboxed_tunnel_starts_without_a_socket(testbed: Testbed, home: Path) -> None:
    name = testbed.interface_name()
    (home / CONTAINER / f"{name}.sock").mkdir()
    program = start(testbed, name, HOME=str(home / CONTAINER))
    wait_until(lambda: "uapi_unavailable" in program.stdout, what="the failure is logged")
    assert program.is_running()


def test_policy_off_makes_no_socket(testbed: Testbed, tmp_path: Path) -> None:
    name = testbed.interface_name()
    program = start(testbed, name, "--uapi-policy", "off")
    assert program.is_running()
    assert not Path(f"/var/run/wireguard/{name}.sock").exists()


@pytest.mark.parametrize("by_option", [True, False])
def test_an_explicit_directory(testbed: Testbed, tmp_path: Path, by_option: bool) -> None:
    name = testbed.interface_name()
    directory = tmp_path / "sockets"
    if by_option:
        start(testbed, name, "--uapi-dir", str(directory))
    else:
        start(testbed, name, WGD_UAPI_DIR=str(directory))
    assert (directory / f"{name}.sock").is_socket()
    assert wgdctl(tmp_path, "--uapi-dir", str(directory), "show", name, "fwmark") == "off\n"


def test_the_sandbox_policy_outside_a_container_says_what_it_looked_for(
    testbed: Testbed, tmp_path: Path
) -> None:
    program = testbed.run_program(
        testbed.namespace(),
        *("--uapi-policy", "sandbox", "--sandbox-bundle-id", "org.example", "wgx"),
        environment={"HOME": str(tmp_path)},
    )
    launch = program.launched()
    assert (launch.returncode, launch.stderr.count("\n")) == (1, 1)
    assert "Library/Containers/org.example/Data" in launch.stderr
    assert str(tmp_path) in launch.stderr
