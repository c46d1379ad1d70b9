"""The documentation: its links lead somewhere, and what it tells to type is understood."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from wgd.ctl import usage
from wgd.manual import programs

_ROOT: Final = Path(__file__).parents[2]
_PAGES: Final = sorted(
    (*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md"), *_ROOT.glob("packaging/*/*.md"))
)
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_BLOCK: Final = re.compile(r"^```[a-z]*[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"`([^`\n]+)`")


def _name_of(path: Path) -> str:
    return str(path.relative_to(_ROOT))


def _anchors(page: Path) -> set[str]:
    """Return what GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", _PAGES, ids=_name_of)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def test_every_page_is_in_the_index() -> None:
    linked = set(_LINK.findall((_ROOT / "docs" / "README.md").read_text()))
    assert {page.name for page in (_ROOT / "docs").glob("*.md")} - {"README.md"} <= linked


def _commands(page: Path) -> Iterator[list[str]]:
    """Yield the command lines of wgd and wgdctl in a page, as words."""
    text = page.read_text()
    lines = [line for block in _BLOCK.findall(text) for line in block.splitlines()]
    lines += _CODE.findall(_BLOCK.sub("", text))
    for line in lines:
        for part in re.split(r"[|;&<>()]+", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # one quote of a pair: the other is in another part
                continue
            if words and words[0] in ("wgd", "wgdctl"):
                yield words


@pytest.mark.parametrize("page", _PAGES, ids=_name_of)
def test_options_and_subcommands_that_are_shown_exist(page: Path) -> None:
    wgd = {name for option in programs.wgd().options for name in option.names}
    subcommands = {each.name: each for each in usage.SUBCOMMANDS}
    for program, *words in _commands(page):
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        if program == "wgd":
            assert options <= wgd, words
            continue
        known = {name for option in programs.wgdctl().options for name in option.names}
        named = [word for word in words if re.fullmatch(r"[a-z-]*[a-z]", word)]
        if named and not named[0].startswith("-"):
            assert named[0] in subcommands, words
            known |= {name for option in subcommands[named[0]].options for name in option.names}
        assert options <= known, words
