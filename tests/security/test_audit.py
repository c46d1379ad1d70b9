"""scripts/audit: a finding fails, and what cannot be looked up does not."""

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

AUDIT = Path(__file__).parents[2] / "scripts" / "audit"
NAMES = (
    "installed packages fit together",
    "vulnerabilities of packages",
    "licences and sources of crates",
    "vulnerabilities of crates",
)
Answers = dict[str, tuple[int, str, str]]


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # beside a script there is none
    loader = importlib.machinery.SourceFileLoader("audit", str(AUDIT))
    spec = importlib.util.spec_from_loader("audit", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "audit", module)
    loader.exec_module(module)
    return module


@pytest.fixture
def run(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Answers], tuple[int, str]]:
    """Run it with tools that answer (status, stdout, stderr); return status and output."""

    def main(answers: Answers) -> tuple[int, str]:
        def answer(*command: str, **_options: float) -> subprocess.CompletedProcess[str]:
            key = next((word for word in answers if word in command), None)
            status, out, err = answers[key] if key else (0, PACKAGES, "")
            return subprocess.CompletedProcess(command, status, out, err)

        monkeypatch.setattr(audit, "_run", answer)
        return int(audit.main()), capsys.readouterr().out

    return main


def packages(*entries: Mapping[str, object]) -> str:
    return json.dumps({"dependencies": list(entries)})


WELL = {"name": "cffi", "version": "2.1.1", "vulns": []}
OURS = {"name": "wgd-native", "skip_reason": "not found"}
PIP = {"name": "pip", "version": "23", "vulns": [{"id": "PYSEC-2023-1", "fix_versions": []}]}
PACKAGES = packages(WELL, OURS, PIP)


def test_nothing_found(run: Callable[[Answers], tuple[int, str]]) -> None:
    status, output = run({})
    assert status == 0
    assert [line.split(": ")[1] for line in output.splitlines()] == list(NAMES)
    assert output.count("nothing found") == 4


def test_a_vulnerable_package_fails(run: Callable[[Answers], tuple[int, str]]) -> None:
    bad = {"id": "PYSEC-2026-1", "fix_versions": ["4.0"]}
    found = packages(WELL, OURS, {"name": "h11", "version": "0.1", "vulns": [bad]})
    status, output = run({"pip_audit": (1, found, "Found 1 known vulnerability in 1 package")})
    assert status == 1
    assert "h11 0.1: PYSEC-2026-1, fixed in 4.0" in output


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((1, "", "ERROR: could not connect"), "skipped: ERROR: could not connect"),
        (
            (0, packages(OURS, {"name": "rich", "skip_reason": "not found"}), ""),
            "skipped: the package index has no answer about any package",
        ),
        (
            (0, packages(WELL, {"name": "rich", "skip_reason": "not found"}), ""),
            "skipped: no answer about rich; nothing found in the others",
        ),
    ],
)
def test_what_the_index_does_not_say_is_said(
    run: Callable[[Answers], tuple[int, str]], answer: tuple[int, str, str], said: str
) -> None:
    status, output = run({"pip_audit": answer})
    assert status == 0
    assert said in output


@pytest.mark.parametrize(
    ("check", "error", "status", "said"),
    [
        ("bans", "error[rejected]: failed to satisfy license requirements", 1, "FOUND"),
        ("bans", "error: no such crate is at hand", 0, "skipped: error: no such crate"),
        ("advisories", "error[vulnerability]: use after free", 1, "FOUND"),
        ("advisories", "error[yanked]: detected yanked crate", 1, "FOUND"),
        ("advisories", "[ERROR] failed to fetch\nfatal: no route", 0, "skipped: fatal: no route"),
    ],
)
def test_findings_and_failures_about_crates_are_told_apart(
    run: Callable[[Answers], tuple[int, str]], check: str, error: str, status: int, said: str
) -> None:
    found, output = run({check: (1, "", error)})
    assert found == status
    assert said in output


def test_packages_that_do_not_fit_together_fail(
    run: Callable[[Answers], tuple[int, str]],
) -> None:
    status, output = run({"pip": (1, "wgd 0.1.0 requires uvloop, which is not installed.\n", "")})
    assert status == 1
    assert "uvloop, which is not installed" in output


def test_a_tool_that_is_missing_or_too_slow_is_no_finding(
    audit: ModuleType,
) -> None:
    with pytest.raises(audit.NotLookedUpError, match="no-such-tool is not installed"):
        audit._run("/nowhere/no-such-tool")
    with pytest.raises(audit.NotLookedUpError, match=r"no answer within 0\.05 s"):
        audit._run("sleep", "5", timeout_seconds=0.05)
