"""`wgd --config`: the daemon does what `wgdctl up` does, and undoes it at its end."""

import os
import signal
import socket
from pathlib import Path
from typing import cast

import pytest

from tests.quick.scene import FAR_ADDRESSES, FULL_TUNNEL, SOCKET_DIRECTORY, Scene, assert_same
from tests.service import reachable
from tests.testbed import wait_until
from tests.testbed.daemons import Program
from wgd.quick.journal import DIRECTORY
from wgd.quick.plan import Plan, Tunnel
from wgd.quick.up import UapiDevice
from wgd.service.privileges import User, drop_to
from wgd.uapi.client import Client

pytestmark = pytest.mark.netns

LINES = "Address = 10.77.0.1/24, fd77::1/64\nDNS = 9.9.9.9"


def start(scene: Scene, path: Path, **variables: str) -> Program:
    """Start a daemon with a file."""
    environment = {**scene.environment(), "LOG_LEVEL": "info", **variables}
    return scene.bed.run_program(
        scene.client, "-f", "--config", str(path), path.stem, environment=environment
    )


def is_up(scene: Scene, path: Path) -> bool:
    """Whether the last hook of the file has run."""
    return path.with_suffix(".up").exists()


def with_marker(path: Path) -> str:
    """Return lines for a file that tell, through another one, that all of them were done."""
    return f"{LINES}\nPostUp = wg show %i && touch {path}/%i.up\nPostDown = rm -f {path}/%i.up"


def end(program: Program, number: signal.Signals = signal.SIGTERM) -> None:
    program.process.send_signal(number)
    program.launched()


def test_the_same_as_wgdctl_up(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, with_marker(scene.bed.directory), FULL_TUNNEL)
    before = scene.state(interface)
    scene.wgdctl("up", path)
    up = scene.state(interface)
    scene.wgdctl("down", path)
    program = start(scene, path)
    wait_until(lambda: is_up(scene, path), what="the interface is up")
    assert_same(scene.state(interface), up)
    ping = scene.client.ping(FAR_ADDRESSES[0])
    assert ping.is_lossless, ping.output
    assert "was brought up by `wgd --config`" in scene.wgdctl_error("down", path)
    end(program)
    assert_same(scene.state(interface), before)
    assert not is_up(scene, path)


@pytest.mark.parametrize("mends_it", ["wgd", "wgdctl down"])
def test_after_a_kill(scene: Scene, mends_it: str) -> None:
    interface = scene.interface()
    path = scene.write(interface, with_marker(scene.bed.directory), FULL_TUNNEL)
    before = scene.state(interface)
    program = start(scene, path)
    wait_until(lambda: is_up(scene, path), what="the interface is up")
    up = scene.state(interface)
    end(program, signal.SIGKILL)
    assert scene.state(interface) not in (before, up)
    path.with_suffix(".up").unlink()
    if mends_it == "wgd":
        program = start(scene, path)
        wait_until(lambda: is_up(scene, path), what="the interface is up again")
        assert_same(scene.state(interface), up)
        end(program)
    else:
        scene.wgdctl("down", path)
    assert_same(scene.state(interface), before)


def test_an_upgrade_in_place_keeps_it(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, with_marker(scene.bed.directory), FULL_TUNNEL)
    before = scene.state(interface)
    program = start(scene, path)
    wait_until(lambda: is_up(scene, path), what="the interface is up")
    up = scene.state(interface)
    path.with_suffix(".up").unlink()
    scene.client.ip("route", "delete", "0.0.0.0/0", "dev", interface, "table", "51820")
    assert scene.state(interface) != up
    program.process.send_signal(signal.SIGUSR2)
    # What somebody took away is made again, and that shows that the new program was there.
    wait_until(lambda: scene.state(interface) == up, 15, what="the new program")
    assert not is_up(scene, path), "hooks do not run again"
    end(program)
    assert_same(scene.state(interface), before)


def test_a_hook_that_fails_ends_the_daemon_and_undoes_everything(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, f"{LINES}\nPostUp = exit 3", FULL_TUNNEL)
    before = scene.state(interface)
    launch = start(scene, path).launched()
    assert launch.returncode == 1
    assert "PostUp = exit 3 failed with exit status 3" in launch.stderr
    assert_same(scene.state(interface), before)


def test_a_bad_file_changes_nothing(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, f"{LINES}\nMTU = many\nPreUp = touch {scene.bed.directory}/no")
    launch = start(scene, path).launched()
    assert launch.returncode == 1
    assert launch.stderr.startswith(f"wgd: {path}, line 5: MTU is a number")
    assert not (scene.bed.directory / "no").exists()


def test_a_name_that_cannot_be_looked_up_does_not_keep_the_daemon_from_starting(
    scene: Scene,
) -> None:
    interface = scene.interface()
    lines = with_marker(scene.bed.directory)
    path = scene.write(interface, lines, endpoint="nowhere.invalid:51820")
    with scene.hosts("") as hosts:
        program = start(scene, path)
        wait_until(lambda: is_up(scene, path), what="the interface is up")
        assert "nowhere.invalid" in program.output
        # Now it can be, and the first packet makes the daemon look.
        hosts.write_text("192.0.2.2 nowhere.invalid\n")
        wait_until(lambda: scene.client.ping("10.77.0.2", count=1).is_lossless, 15, what="a ping")
    end(program)


def test_what_is_restored_is_left_alone_and_what_is_missing_is_made(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, LINES, FULL_TUNNEL)
    before = scene.state(interface)
    scene.wgdctl("up", path)
    up = scene.state(interface)
    scene.client.ip("-6", "rule", "delete", "table", "main", "suppress_prefixlength", "0")
    scene.client.ip("address", "delete", "10.77.0.1/24", "dev", interface)
    scene.client.run("nft", "delete", "table", "ip", f"wg-quick-{interface}")
    tunnel = cast(Tunnel, UapiDevice(Client(), interface))

    def adopt() -> None:
        plan = Plan.load(str(path), interface)
        plan.begin(is_restored=True)
        plan.apply(tunnel, is_restored=True, is_configured=True)
        plan.keep()
        plan.end()

    assert scene.forked(adopt) == 0
    assert_same(scene.state(interface), up)

    def leave() -> None:
        plan = Plan.load(str(path), interface)
        plan.begin(is_restored=True)
        plan.apply(tunnel, is_restored=True, is_configured=True)
        plan.end()

    assert scene.forked(leave) == 0
    assert not (SOCKET_DIRECTORY / f"{interface}.sock").exists()
    assert_same(scene.state(interface), before)


@pytest.mark.alone  # it cannot read what root's tunnels need, and leaves them what they share
def test_as_another_user(scene: Scene) -> None:
    """Started by root, it is nobody's daemon that undoes it, or its successor that goes on."""
    interface = scene.interface()
    path = scene.write(interface, "Address = 10.77.0.1/24, fd77::1/64", FULL_TUNNEL)
    before = scene.state(interface)
    program = start(scene, path, WGD_USER="nobody")
    wait_until(lambda: "event=ready" in program.output, what="the daemon is ready")
    up = scene.state(interface)
    scene.client.ip("-6", "rule", "delete", "table", "main", "suppress_prefixlength", "0")
    scene.client.run("nft", "delete", "table", "ip", f"wg-quick-{interface}")
    nobody = User.named("nobody")

    def succeed() -> None:
        drop_to(nobody)
        assert not os.access(path, os.R_OK)
        plan = Plan.load(str(path), interface)
        plan.begin(is_restored=True)
        plan.apply(cast(Tunnel, None), is_restored=True, is_configured=True)
        plan.keep()
        plan.end()

    assert scene.forked(succeed) == 0
    assert_same(scene.state(interface), up)
    end(program)
    # Root's directory keeps two files, which say that nothing is left to undo.
    names = [str(DIRECTORY / f"{interface}.{suffix}") for suffix in ("done", "json")]
    left = scene.state(interface)
    for name in names:
        assert f"{name}\n" in left
        left = left.replace(f"{name}\n", "")
    assert_same(left, before)
    assert scene.wgdctl_error("down", path) == f"wgdctl: {interface} is not up"


def test_a_second_start_is_refused_wherever_the_socket_is(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, LINES, FULL_TUNNEL)
    directory = scene.bed.directory / "uapi"
    command = ("-f", "--config", str(path), "--uapi-dir", str(directory), interface)
    environment = {**scene.environment(), "LOG_LEVEL": "info"}
    before = scene.state(interface)
    program = scene.bed.run_program(
        scene.client,
        *command,
        environment=environment,
    )
    wait_until(lambda: "event=ready" in program.output, what="the daemon is ready")
    up = scene.state(interface)
    second = scene.bed.run_program(scene.client, *command, environment=environment).launched()
    assert second.returncode == 1
    assert f"{interface} is up already" in second.stderr
    assert_same(scene.state(interface), up)
    # Killed, its socket may be alive all the same: a socket unit's.
    end(program, signal.SIGKILL)
    (directory / f"{interface}.sock").unlink()
    SOCKET_DIRECTORY.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as units:
        units.bind(str(SOCKET_DIRECTORY / f"{interface}.sock"))
        units.listen()
        program = scene.bed.run_program(scene.client, *command, environment=environment)
        wait_until(lambda: "event=ready" in program.output, what="the daemon is ready again")
        (SOCKET_DIRECTORY / f"{interface}.sock").unlink()
    end(program)
    assert_same(scene.state(interface), before)


@pytest.mark.parametrize("mends_it", ["wgd", "wgdctl up"])
def test_the_hooks_of_a_killed_one_are_closed(scene: Scene, mends_it: str) -> None:
    interface = scene.interface()
    opened = scene.bed.directory / f"{interface}.opened"
    lines = f"{LINES}\nPreUp = mkdir {opened}\nPostDown = rmdir {opened}; echo x >>{opened}.closed"
    path = scene.write(interface, lines)
    program = start(scene, path)
    wait_until(lambda: "event=ready" in program.output, what="the daemon is ready")
    end(program, signal.SIGKILL)
    assert opened.exists()
    if mends_it == "wgd":
        program = start(scene, path)
        wait_until(lambda: "event=ready" in program.output, what="the daemon is ready again")
        end(program)
    else:
        scene.wgdctl("up", path)
        scene.wgdctl("down", path)
    assert not opened.exists()
    assert Path(f"{opened}.closed").read_text() == "x\nx\n"


@pytest.mark.parametrize("how", ["SIGTERM", "the interface"])
def test_the_end_does_not_wait_for_a_hook(scene: Scene, how: str) -> None:
    interface = scene.interface()
    child = scene.bed.directory / f"{interface}.child"
    lines = f"{LINES}\nPostUp = sleep 1000 & echo $! >{child}.new; mv {child}.new {child}; wait"
    path = scene.write(interface, lines, FULL_TUNNEL)
    before = scene.state(interface)
    program = start(scene, path)
    wait_until(child.exists, what="the hook")
    if how == "SIGTERM":
        program.process.send_signal(signal.SIGTERM)
    else:
        scene.client.ip("link", "delete", interface)
    assert program.launched().returncode == 0
    assert_same(scene.state(interface), before)
    stat = Path(f"/proc/{child.read_text().strip()}/stat")
    wait_until(lambda: not stat.exists() or ") Z " in stat.read_text(), what="the hook's end")


def test_the_last_of_two_full_tunnels_puts_the_sysctl_back(scene: Scene) -> None:
    before, programs = scene.src_valid_mark(), []
    for n in range(2):
        interface = scene.interface()
        path = scene.write(interface, f"Address = 10.77.{n}.1/32", FULL_TUNNEL)
        programs.append(program := start(scene, path))
        wait_until(lambda: "event=ready" in program.output, what="the daemon is ready")
    assert scene.src_valid_mark() == "1"
    end(programs[0])
    assert scene.src_valid_mark() == "1"
    end(programs[1])
    assert scene.src_valid_mark() == before == "0"


def test_an_upgrade_that_could_not_go_on_is_refused(scene: Scene) -> None:
    """A user that can read neither root's file nor a journal."""
    interface = scene.interface()
    path = scene.write(interface, LINES)
    scene.bed.directory.chmod(0o755)
    command = reachable.command()
    program = scene.bed.run_program(
        scene.client,
        *("-f", "--config", str(path), interface),
        command=command,
        environment={**scene.environment(), "LOG_LEVEL": "info", "WGD_USER": "nobody"},
    )
    wait_until(lambda: "event=ready" in program.output, what="the daemon is ready")
    (DIRECTORY / f"{interface}.json").unlink()
    program.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: "event=upgrade_refused" in program.output, 15, what="the refusal")
    assert scene.client.has_interface(interface)
    end(program)
