"""Killed at a random moment: the next start works, and after it nothing is left."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.faults.kills import MOMENTS, Killer, process_name, start
from tests.quick.scene import Scene, assert_same
from tests.testbed import Testbed, only_wgd, wait_until

pytestmark = [pytest.mark.netns, only_wgd("nothing is left of it")]

SEED = 6


@pytest.fixture
def scene(testbed: Testbed) -> Iterator[Scene]:
    scene = Scene.build(testbed)
    yield scene
    scene.clear()


@pytest.mark.parametrize("first", [0, 1])
def test_killed(scene: Scene, first: int) -> None:
    killer = Killer(scene)
    for moment in MOMENTS[first::2]:
        print(killer.kill_at(moment, SEED))  # noqa: T201 - pytest shows it when the test fails


@pytest.mark.parametrize(("runner", "hook"), [("wgdctl", "PreUp"), ("wgd", "PostUp")])
def test_a_hook_goes_no_further_than_who_runs_it(scene: Scene, runner: str, hook: str) -> None:
    interface = scene.interface()
    begun, late = (scene.bed.directory / f"{interface}.{n}" for n in ("begun", "late"))
    command = f"[ -e {begun} ] || {{ touch {begun}; sleep 60; touch {late}; }}"
    path = scene.write(interface, f"Address = 10.77.0.1/24\n{hook} = {command}")
    before = scene.state(interface)
    words = ("up", path) if runner == "wgdctl" else ("--config", path, interface)
    process = start(scene, runner, *words)
    wait_until(begun.exists, 15, what="the hook")

    def pids_of(name: str) -> list[int]:
        return [pid for pid in scene.client.pids() if process_name(pid) == name]

    (hook_pid,) = pids_of("bash")
    for pid in pids_of(runner):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: hook_pid not in pids_of("bash"), what="the end of the hook")
    for pid in pids_of("sleep"):  # what a hook has started is its own
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=10)
    assert not late.exists()
    if runner == "wgd":
        scene.wgdctl("up", path)  # which closes the hooks of the killed one
    scene.run("wgdctl", "down", path, check=runner == "wgd")
    assert_same(scene.state(interface), before)
