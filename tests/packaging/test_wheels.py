"""The two wheels, built from the working tree: what they are called, and what is in them.

Nothing is fetched: the builds take their tools from the environment that runs the tests, and the
native one what `scripts/bootstrap` left in cargo's target directory.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

import wgd

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "native"

# Where rustup puts its programs, which need not be on PATH; then those of this environment.
SEARCH_PATH = os.pathsep.join(
    (
        str(Path(sys.executable).parent),
        str(Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"), "bin")),
        os.environ["PATH"],
    )
)

USER_PROGRAM = """\
import wgd_native

version: str = wgd_native.__version__
engine = wgd_native.Engine()
engine.set_mtu("1420")
"""


@dataclass(frozen=True)
class Wheel:
    """A wheel's file, the names in it, and its metadata."""

    path: Path
    names: frozenset[str]
    metadata: Message

    @property
    def contents(self) -> set[str]:
        """The names in it but for those of the `.dist-info` folder."""
        return {name for name in self.names if ".dist-info/" not in name}

    def read(self, name: str) -> str:
        """Return the text of the file whose name ends so."""
        (found,) = (each for each in self.names if each.endswith(name))
        with ZipFile(self.path) as archive:
            return archive.read(found).decode()


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": SEARCH_PATH, "PIP_NO_INDEX": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        command, env=environment, cwd="/", text=True, stdin=subprocess.DEVNULL, capture_output=True
    )


def _pip(*arguments: str | Path) -> None:
    done = _run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def _build(source: Path, into: Path) -> Wheel:
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", into, source)
    (path,) = into.iterdir()
    with ZipFile(path) as archive:
        names = frozenset(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        return Wheel(path, names, Parser().parsestr(archive.read(metadata).decode()))


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The wheel of wgd. Setuptools writes beside what it builds: that is a copy."""
    copy = tmp_path_factory.mktemp("wgd")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in ("wgd", "tests", "benchmarks", "native"):
        ignored = shutil.ignore_patterns("target", "results", "__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    return _build(copy, tmp_path_factory.mktemp("pure"))


@pytest.fixture(scope="module")
def native_wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The wheel of wgd-native. Cargo writes into its target directory only."""
    cargo = shutil.which("cargo", path=SEARCH_PATH)
    if cargo is None or importlib.util.find_spec("wgd_native") is None:
        reason = "needs cargo, and the native engine that scripts/bootstrap builds with it"
        if os.environ.get("CI") == "true":
            pytest.fail(f"in CI this must run, but it {reason}", pytrace=False)
        pytest.skip(reason)
    return _build(NATIVE, tmp_path_factory.mktemp("native"))


def test_the_pure_wheel_is_for_every_python_and_machine(pure_wheel: Wheel) -> None:
    assert pure_wheel.path.name == f"wgd-{wgd.__version__}-py3-none-any.whl"
    assert pure_wheel.metadata["Requires-Python"] == ">=3.11"


def test_the_pure_wheel_holds_the_package_and_nothing_else(pure_wheel: Wheel) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "wgd").rglob("*.py")}
    assert "wgd/dataplane/portable.py" in modules
    assert pure_wheel.contents == modules | {"wgd/py.typed"}
    assert any(name.endswith("/LICENSE") for name in pure_wheel.names)


def test_the_pure_wheel_brings_the_commands(pure_wheel: Wheel) -> None:
    assert pure_wheel.read("/entry_points.txt").split("\n\n")[0].split("\n")[:3] == [
        "[console_scripts]",
        "wgd = wgd.cli:main",
        "wgdctl = wgd.ctl.main:main",
    ]


def test_the_pure_wheel_asks_for_the_native_one_only_as_an_extra(pure_wheel: Wheel) -> None:
    requirements = pure_wheel.metadata.get_all("Requires-Dist") or []
    (native,) = (each for each in requirements if "native" in each)
    assert re.fullmatch(r"""wgd-native *; extra == ['"]native['"]""", native)


def test_the_native_wheel_is_for_every_python_from_3_11_on(native_wheel: Wheel) -> None:
    workspace = tomllib.loads((NATIVE / "Cargo.toml").read_text())["workspace"]
    version = re.escape(workspace["package"]["version"])
    name = native_wheel.path.name
    assert re.fullmatch(rf"wgd_native-{version}-cp311-abi3-(linux|macosx)_\w+\.whl", name)
    assert native_wheel.metadata["Requires-Python"] == ">=3.11"
    assert native_wheel.metadata.get_all("Requires-Dist") is None


def test_the_native_wheel_holds_the_module_and_its_types(native_wheel: Wheel) -> None:
    assert native_wheel.contents == {
        "wgd_native/__init__.py",
        "wgd_native/__init__.pyi",
        "wgd_native/py.typed",
        "wgd_native/wgd_native.abi3.so",
    }
    assert native_wheel.read("/__init__.pyi") == (NATIVE / "wgd_native.pyi").read_text()


def test_the_native_wheel_works_where_it_is_installed(native_wheel: Wheel, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    made = _run(sys.executable, "-m", "venv", "--without-pip", environment)
    assert made.returncode == 0, made.stderr
    _pip("--python", python, "install", "--no-deps", native_wheel.path)

    imported = _run(python, "-c", "import wgd_native as n; n.Engine(); print(n.__version__)")
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.strip() == native_wheel.metadata["Version"]

    # mypy finds the types in the wheel: the program's one mistake is seen, and nothing else.
    program = tmp_path / "program.py"
    program.write_text(USER_PROGRAM)
    checked = _run(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", python),
        *("--config-file", "/dev/null", "--cache-dir", tmp_path / "cache", program),
    )
    (mistake,) = re.findall(r"program\.py:(\d+): error: .*\[(.+)\]", checked.stdout)
    assert mistake == ("5", "arg-type"), checked.stdout + checked.stderr
