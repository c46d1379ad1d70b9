"""The man pages: true to the programs, up to date, and clean for those who show them."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from wgd import cli
from wgd.ctl import usage
from wgd.ctl.main import SUBCOMMANDS
from wgd.manual import programs
from wgd.manual.__main__ import files
from wgd.manual.roff import Example, Page, Section, Term, inline, render
from wgd.manual.syntax import Subcommand

PACKAGING: Final = Path(__file__).parents[2] / "packaging"
PAGES: Final = tuple(name for name in files() if name.startswith("man/"))


def _shown(name: str) -> str:
    """Return a page as a terminal has it, without bold and underlined."""
    shown = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=300", PACKAGING / name],
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r".\x08", "", shown.stdout)


@pytest.fixture
def mandoc(need: Callable[[str], None]) -> None:
    need("mandoc")


@pytest.mark.parametrize("name", files())
def test_the_files_in_packaging_are_up_to_date(name: str) -> None:
    assert (PACKAGING / name).read_text() == files()[name], "run: python -m wgd.manual packaging"


@pytest.mark.usefixtures("mandoc")
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_has_nothing_to_say(name: str) -> None:
    lint = ["mandoc", "-T", "lint", "-W", "style", str(PACKAGING / name)]
    checked = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say(name: str, need: Callable[[str], None]) -> None:
    need("groff")
    lint = ["groff", "-man", "-ww", "-z", "-Tascii", str(PACKAGING / name)]
    checked = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.usefixtures("mandoc")
def test_the_manual_of_wgd_has_all_that_help_has() -> None:
    shown = " ".join(_shown("man/wgd.8").split())
    parser = cli.make_parser({})
    for option in programs.wgd().options:
        assert all(name in shown for name in option.names)
        assert option.summary[1:].replace("`", "") in shown
    epilog = parser.epilog or ""
    names = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", epilog))
    assert "LOG_LEVEL" in names
    assert names <= set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", shown))
    signals = re.findall(r"^  ([A-Z0-9, ]+)  ", epilog.partition("signals:")[2], re.MULTILINE)
    assert "USR2" in " ".join(signals)
    assert all(f"SIG{name}" in shown for name in re.findall(r"\w+", " ".join(signals)))


@pytest.mark.usefixtures("mandoc")
def test_the_manual_of_wgdctl_has_all_that_help_has() -> None:
    shown = " ".join(_shown("man/wgdctl.8").split())
    for name in re.findall(r"^  (--?[a-z-]+)", usage.overview(), re.MULTILINE):
        assert name in shown
    for subcommand in usage.SUBCOMMANDS:
        assert subcommand.summary[1:] in shown
        synopsis = subcommand.synopsis.replace("<", "").replace(">", "")
        assert f"{subcommand.name} {synopsis}".rstrip() in shown
        assert all(option.summary[1:] in shown for option in subcommand.options)
    assert set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", usage.ENVIRONMENT)) <= set(
        re.findall(r"\b[A-Z]+_[A-Z_]+\b", shown)
    )


def test_every_subcommand_is_described_and_every_described_one_exists() -> None:
    assert [each.name for each in usage.SUBCOMMANDS] == list(SUBCOMMANDS)


@pytest.mark.parametrize("subcommand", usage.SUBCOMMANDS, ids=lambda each: each.name)
def test_options_and_keywords_are_in_the_synopsis(subcommand: Subcommand) -> None:
    words = {name for option in subcommand.options for name in option.names}
    words |= {keyword.name for keyword in subcommand.keywords}
    words |= {word for value in subcommand.operands for word in value.words}
    without_variables = re.sub(r"<[^<>]*>", "", subcommand.synopsis)
    assert words == set(re.findall(r"-{0,2}[a-z][a-z-]*", without_variables))
    for name in words:
        assert name in usage.explanation(subcommand.name)


def test_what_troff_would_take_for_its_own_is_escaped() -> None:
    page = Page(
        "name",
        "a summary",
        "2026-01-01",
        "1",
        (
            Section(
                "TITLE",
                (
                    ".TP is no macro here, nor is \\fB",
                    Term("`--a-b`=<c d>", ("'quoted'",)),
                    Example(("'a' \\", ".b ~ ^ `c` --d")),
                ),
            ),
        ),
    )
    text = render(page)
    assert "\n\\&.TP is no macro here, nor is \\efB\n" in text
    assert "\n\\fB\\-\\-a\\-b\\fR=\\fIc\\fR \\fId\\fR\n\\&'quoted'\n" in text
    assert "\n\\(aqa\\(aq \\e\n\\&.b \\(ti \\(ha \\(gac\\(ga \\-\\-d\n" in text


def test_marks_in_text() -> None:
    assert inline("see wg-quick(8), or --json") == (
        "see \\fBwg\\-quick\\fR(8), or \\fB\\-\\-json\\fR"
    )
    assert inline("`a <b> c` well-known") == "\\fBa\\fR \\fB\\fIb\\fB\\fR \\fBc\\fR well-known"
