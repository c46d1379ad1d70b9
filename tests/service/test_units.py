"""The files of packaging/: systemd's own tools find nothing wrong, and the hardening stays."""

import plistlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.machine import UNITS
from tests.testbed import require
from wgd.cli import make_parser

LAUNCHD = UNITS.parent / "launchd"
MAX_EXPOSURE = 2.0


@pytest.fixture
def units(tmp_path: Path) -> Iterator[list[Path]]:
    """The units of one tunnel, with programs that this machine has."""
    require("systemd-analyze")
    found = []
    for unit in UNITS.glob("wgd@.*"):
        text = unit.read_text().replace("ExecStart=wgd ", f"ExecStart={shutil.which('true')} ")
        path = tmp_path / unit.name.replace("@", "@wg0")
        path.write_text(text)
        (tmp_path / unit.name).write_text(text)
        found.append(path)
    assert len(found) == 2
    yield found


def analyze(*arguments: str | Path) -> str:
    completed = subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout + completed.stderr


def test_systemd_finds_nothing_wrong(units: list[Path]) -> None:
    assert analyze("verify", "--man=no", *units) == ""


def test_little_is_exposed(units: list[Path]) -> None:
    (service,) = [unit for unit in units if unit.suffix == ".service"]
    text = analyze("security", "--offline=yes", "--no-pager", service)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    assert exposure is not None, text
    assert float(exposure[1]) <= MAX_EXPOSURE, text
    text = (UNITS.parents[1] / "docs/operations.md").read_text()
    documented = re.search(r"exposure level of ([\d.]+)", text)
    assert documented is not None
    # Versions of systemd differ a little in how they count.
    assert float(documented[1]) == pytest.approx(float(exposure[1]), abs=0.2)


def test_the_command_is_one_that_wgd_takes() -> None:
    service = (UNITS / "wgd@.service").read_text()
    (command,) = re.findall(r"^ExecStart=wgd (.*)$", service, re.MULTILINE)
    parsed = make_parser({}).parse_args(command.replace("%i", "wg0").split())
    assert parsed.interface == "wg0"
    assert parsed.foreground


def test_the_user_of_the_unit_is_made() -> None:
    service = (UNITS / "wgd@.service").read_text()
    (user,) = re.findall(r"^User=(.*)$", service, re.MULTILINE)
    assert re.search(rf"^u {user} ", (UNITS / "wgd.sysusers.conf").read_text(), re.MULTILINE)


def test_what_the_documentation_shows_is_there() -> None:
    text = (UNITS.parents[1] / "docs/operations.md").read_text()
    for path in re.findall(r"packaging/(?:systemd|launchd)/[\w@.-]+\.\w+", text):
        assert (UNITS.parents[1] / path).exists(), path


@pytest.mark.parametrize("path", sorted(LAUNCHD.glob("*.plist")), ids=lambda path: path.stem)
def test_a_property_list_is_one_and_launchd_knows_its_keys(path: Path) -> None:
    content = plistlib.loads(path.read_bytes())
    # launchd.plist(5)
    known = {
        *("Label", "ProgramArguments", "EnvironmentVariables", "RunAtLoad", "KeepAlive"),
        *("ThrottleInterval", "ProcessType", "StandardOutPath", "StandardErrorPath", "Umask"),
        *("HardResourceLimits", "SoftResourceLimits", "AbandonProcessGroup", "ExitTimeOut"),
        *("SessionCreate", "WorkingDirectory"),
    }
    assert set(content) <= known
    assert content["Label"] == path.stem or "wg0" in content["Label"]
    for limits in ("SoftResourceLimits", "HardResourceLimits"):
        assert content.get(limits, {}).get("Core", 0) == 0
    program, *arguments = content["ProgramArguments"]
    if program.endswith("/wgd"):
        assert make_parser({}).parse_args(arguments).foreground
        assert content["KeepAlive"]
        assert content["SoftResourceLimits"]["Core"] == 0
        assert content["Umask"] == 0o77
