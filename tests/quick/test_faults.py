"""Every step of `up` fails in every way there is, and nothing is left of it.

`up` runs in a fork, with a checkpoint that raises, or that kills the process as `kill -9` does:
right after a step was written down, or right after it was done.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from tests.quick.scene import FULL_TUNNEL, Scene, assert_same
from wgd.ctl.values import EndpointReader
from wgd.quick import config, journal
from wgd.quick.down import down
from wgd.quick.journal import DIRECTORY, lock
from wgd.quick.system import System
from wgd.quick.transaction import no_checkpoint
from wgd.quick.up import up
from wgd.uapi.client import Client

pytestmark = pytest.mark.netns

Moment = Literal["before", "after"]

STEPS = [
    *("PreUp", "daemon", "configuration", "addresses", "link", "dns", "routes", "fwmark"),
    *("default routes6", "rules6", "firewall6"),
    *("default routes", "rules", "sysctl", "firewall", "PostUp"),
]
"""What the file below takes, in order."""

_NAMES = {"default routes6": "default routes", "rules6": "rules", "firewall6": "firewall"}


@pytest.fixture
def path(scene: Scene) -> Path:
    lines = "\n".join(
        (
            "Address = 10.77.0.1/24, fd77::1/64",
            "DNS = 9.9.9.9",
            f"PreUp = ip link set dev lo mtu 60000; touch {scene.bed.directory}/%i.up",
            "PostUp = true",
            f"PostDown = ip link set dev lo mtu 65536; rm -f {scene.bed.directory}/%i.up",
        )
    )
    return scene.write(scene.interface(), lines, f"{FULL_TUNNEL}, 10.20.0.0/16")


def bring_up(path: Path, checkpoint: Callable[[str, Moment], None] = no_checkpoint) -> None:
    """Do what `wgdctl up` does, with a checkpoint."""
    system = System(lambda _: None, lambda _: None)
    loaded = config.load(path, path.stem)
    endpoints = EndpointReader(os.environ, lambda _: None, lambda _: None)
    with lock(path.stem, DIRECTORY):
        up(
            loaded,
            system=system,
            client=Client(timeout_seconds=30),
            endpoints=endpoints,
            directory=DIRECTORY,
            checkpoint=checkpoint,
        )


def complain(text: str) -> None:
    os.write(2, text.encode())


def take_down(path: Path) -> None:
    """Do what `wgdctl down` does."""
    system = System(lambda _: None, complain)
    loaded = config.load(path, path.stem)
    with lock(path.stem, DIRECTORY):
        down(
            path.stem,
            loaded,
            system=system,
            client=Client(timeout_seconds=30),
            directory=DIRECTORY,
            save=lambda: None,
        )


def numbered(action: Callable[[], None], number: int, moment: Moment) -> Callable[..., None]:
    """Return a checkpoint that does `action` at a moment of the step of that number."""
    passed = 0

    def checkpoint(_name: str, now: Moment) -> None:
        nonlocal passed
        if (passed, now) == (number, moment):
            action()
        passed += now == "after"

    return checkpoint


def fail() -> None:
    raise RuntimeError("as the test wants it")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_these_are_the_steps(scene: Scene, path: Path) -> None:
    seen = scene.bed.directory / "steps"

    def checkpoint(name: str, moment: Moment) -> None:
        if moment == "after":
            with seen.open("a") as file:
                file.write(f"{name}\n")

    assert scene.forked(lambda: bring_up(path, checkpoint)) == 0
    steps = [_NAMES.get(step, step).removeprefix("default ") for step in STEPS]
    assert seen.read_text().splitlines() == steps
    assert scene.forked(lambda: take_down(path)) == 0


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails(scene: Scene, path: Path, step: str) -> None:
    before = scene.state(path.stem)
    checkpoint = numbered(fail, STEPS.index(step), "before")
    assert scene.forked(lambda: bring_up(path, checkpoint)) == 1
    assert_same(scene.state(path.stem), before)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(scene: Scene, path: Path, step: str, moment: Moment) -> None:
    before = scene.state(path.stem)
    checkpoint = numbered(be_killed, STEPS.index(step), moment)
    assert scene.forked(lambda: bring_up(path, checkpoint)) == -signal.SIGKILL
    assert scene.forked(lambda: take_down(path)) == 0
    assert_same(scene.state(path.stem), before)


def test_killed_while_undoing(scene: Scene, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scene.state(path.stem)
    assert scene.forked(lambda: bring_up(path)) == 0

    class Killed(journal.Journal):
        def remove(self) -> None:
            be_killed()

    monkeypatch.setattr("wgd.quick.down.Journal", Killed)
    assert scene.forked(lambda: take_down(path)) == -signal.SIGKILL
    monkeypatch.undo()
    assert scene.forked(lambda: take_down(path)) == 0
    assert_same(scene.state(path.stem), before)


def test_what_cannot_be_undone_stays_to_be_undone(
    scene: Scene, path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = scene.state(path.stem)
    assert scene.forked(lambda: bring_up(path)) == 0
    scene.program("nft", "#!/bin/sh\necho no way >&2\nexit 1\n")
    try:
        assert scene.forked(lambda: take_down(path)) == 1
    finally:
        (scene.programs / "nft").unlink()
    assert (
        f"cannot undo the firewall of {path.stem}: nft -f - failed: no way"
        in capfd.readouterr().err
    )
    left = scene.state(path.stem).replace(before, "")
    assert f"wg-quick-{path.stem}" in left
    assert f"dev {path.stem}" not in left
    assert scene.forked(lambda: take_down(path)) == 0
    assert_same(scene.state(path.stem), before)
