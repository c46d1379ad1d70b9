"""The Dockerfile: what it says, and on demand all its steps, up to a tunnel out of a container."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.manual import container
from tests.testbed import Testbed, wait_until
from tests.testbed.requirements import require
from wgd.cli import make_parser
from wgd.ctl.main import SUBCOMMANDS

STAGES: Final = container.parse(container.DOCKERFILE.read_text())
_NEVER_IN_THE_RESULT: Final = re.compile(r"gcc|-dev$|rust|cargo|venv|pip$")


# -- what it says ----------------------------------------------------------------------------------


def test_it_has_a_stage_that_builds_and_one_that_runs() -> None:
    build, result = STAGES
    assert build.name == "build"
    assert result.base == "debian:bookworm-slim"
    assert result.arguments("COPY") == ["--from=build /opt/wgd /opt/wgd"]
    packages = " ".join(result.arguments("RUN")).split()
    assert "python3" in packages
    assert not [word for word in packages if _NEVER_IN_THE_RESULT.search(word)]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignored = container.DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*"
    for text in STAGES[0].arguments("COPY"):
        *names, _ = text.split()
        for name in names:
            assert (container.ROOT / name).exists()
            assert f"!{name}" in ignored
    assert "native/target" in ignored


def test_the_program_takes_what_it_is_started_with() -> None:
    program, *arguments = container.command_line(STAGES[1])
    parsed = make_parser(STAGES[1].environment()).parse_args(arguments)
    assert program == "wgd"
    assert parsed.foreground
    assert (parsed.config, parsed.interface) == ("/etc/wireguard/wg0.conf", "wg0")
    found = re.match(r"wgdctl (\w+)", container.health_command(STAGES[1])[2])
    assert found is not None
    assert found[1] in SUBCOMMANDS


# -- done ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory that the image would be: five minutes of work, and 2 GB meanwhile."""
    if os.environ.get("WGD_TEST_DOCKERFILE") != "1":
        pytest.skip("on demand: set WGD_TEST_DOCKERFILE=1 (five minutes, Debian's mirror, PyPI)")
    require("debootstrap", "rustc", "setpriv")
    directory = tmp_path_factory.mktemp("image")
    yield container.Builder(directory).build(STAGES)
    shutil.rmtree(directory)


@pytest.mark.slow
def test_the_image_has_no_compiler(image: Path) -> None:
    for name in ("gcc", "cc", "cargo", "rustc", "pip", "pip3"):
        for directory in ("usr/bin", "usr/local/bin", "opt/wgd/bin"):
            assert not (image / directory / name).exists()
    assert not (image / "src").exists()


@pytest.mark.slow
@pytest.mark.parametrize("user", ["", "nobody"], ids=["root", "nobody"])
def test_a_container_reaches_its_peer(image: Path, testbed: Testbed, user: str) -> None:
    inside, outside = testbed.namespace(), testbed.namespace()
    testbed.link(inside, outside)
    inside.add_address("eth0", "192.0.2.1/24")
    outside.add_address("eth0", "192.0.2.2/24")
    ours, theirs = testbed.keys(), testbed.keys()
    peer = testbed.daemon(outside)
    peer.setconf(
        f"[Interface]\nPrivateKey = {theirs.private}\nListenPort = 51820\n"
        f"[Peer]\nPublicKey = {ours.public}\nAllowedIPs = 10.77.0.1/32\n"
    )
    outside.add_address(peer.interface, "10.77.0.2/24")
    peer.up()
    configuration = image / "etc/wireguard/wg0.conf"
    configuration.parent.mkdir(exist_ok=True)
    configuration.touch(0o600)
    configuration.write_text(
        f"[Interface]\nPrivateKey = {ours.private}\nAddress = 10.77.0.1/24\n[Peer]\nPublicKey = "
        f"{theirs.public}\nEndpoint = 192.0.2.2:51820\nAllowedIPs = 10.77.0.2/32\n"
    )
    stage = STAGES[1]
    environment = stage.environment() | ({"WGD_USER": user} if user else {})
    command = container.contained(image, container.command_line(stage), environment)
    with _running(inside.command(*command)) as first:

        def asked(*words: str) -> subprocess.CompletedProcess[str]:
            command = ["nsenter", "-t", str(first()), "-m", "-p", "-r", "env", "-i"]
            command += [f"{name}={value}" for name, value in environment.items()]
            return subprocess.run(
                [*command, *words], capture_output=True, text=True, check=False, timeout=30
            )

        health = container.health_command(stage)
        wait_until(lambda: asked(*health).returncode == 0, 20, what="a healthy container")
        ping = inside.ping("10.77.0.2", count=3)
        assert ping.is_lossless, ping.output
        assert theirs.public in asked("wgdctl", "show").stdout
        assert asked("python", "-c", "import wgd_native").returncode == 0
        status = Path(f"/proc/{first()}/status").read_text()
        uid = "65534" if user else "0"
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert not inside.has_interface("wg0")


@contextmanager
def _running(command: list[str]) -> Iterator["_First"]:
    """Run a container and stop it as `docker stop` does; yields who knows its first process."""
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    first = _First(started.pid)
    try:
        yield first
        os.kill(first(), signal.SIGTERM)
        output, _ = started.communicate(timeout=20)
        assert started.returncode == 0, output
    except BaseException:
        started.kill()  # and with it, all that is in the container
        print(started.communicate()[0])  # noqa: T201 - pytest shows it
        raise


class _First:
    """The process that is number 1 in the container, by its number here."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __call__(self) -> int:
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        return int(children[0]) if children else self._pid
