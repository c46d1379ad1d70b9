"""A manual page as data, and as troff with the man(7) macros, for groff and mandoc.

Text is marked up with two things only: `words` in backquotes are typed as they are (bold), and
<words> in angle brackets stand for something else (italic). Options and references such as wg(8)
are found without marks.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_WIDTH: Final = 78

_MARKED: Final = re.compile(
    r"`(?P<literal>[^`]+)`"
    r"|<(?P<variable>[^<>]+)>"
    r"|(?P<page>[a-z][a-z0-9_.@-]*)(?=\([1-9]\))"
    r"|(?<![\w-])(?P<option>--?[a-zA-Z][a-zA-Z-]*)"
)
_IN_LITERAL: Final = re.compile(r"<([^<>]+)>")


@dataclass(frozen=True, slots=True)
class Term:
    """Something and what it is: an option, a file, a signal. `text` has paragraphs."""

    name: str
    text: tuple[str, ...]
    terms: tuple["Term", ...] = ()
    """What belongs below it: the options of a subcommand."""


@dataclass(frozen=True, slots=True)
class Example:
    """Lines to type, as they are."""

    lines: tuple[str, ...]


Block = str | Term | Example
"""A `str` is a paragraph."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of section 8."""

    name: str
    summary: str
    date: str
    """Of the last change of what the page says: YYYY-MM-DD."""
    version: str
    sections: tuple[Section, ...]


def render(page: Page) -> str:
    """Return the page as troff."""
    lines = [
        '.\\" Made by `python -m wgd.manual DIRECTORY`: change it there.',
        f'.TH {page.name.upper()} 8 {page.date} "wgd {page.version}" "System Administration"',
        ".nh",  # options and paths must not be hyphenated
        ".ad l",
        ".SH NAME",
        f"{page.name} \\- {_escape(page.summary)}",
    ]
    for section in page.sections:
        lines += [f".SH {section.title}", *_blocks(section.blocks)]
    return "\n".join(lines) + "\n"


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    is_first = True
    for block in blocks:
        match block:
            case Term(name, text, terms):
                yield ".TP"
                yield inline(name)
                for number, paragraph in enumerate(text):
                    if number:
                        yield ".IP"  # a further paragraph, indented like the first
                    yield from _wrap(paragraph)
                if terms:
                    yield from (".RS", *_blocks(terms), ".RE")
            case Example(lines):
                yield from (".PP", ".nf", ".RS 4")
                yield from (_start(_literal(line)) for line in lines)
                yield from (".RE", ".fi")
            case _:
                if not is_first:
                    yield ".PP"
                yield from _wrap(block)
        is_first = False


def _wrap(paragraph: str) -> Iterator[str]:
    """Yield lines of troff that are at most some 80 bytes long."""
    line = ""
    for word in inline(paragraph).split(" "):
        if line and len(line) + 1 + len(word) > _WIDTH:
            yield _start(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield _start(line)


def _start(line: str) -> str:
    """Return a line that troff does not take for a macro."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


def inline(text: str) -> str:
    """Return marked-up text as troff."""
    parts = []
    end = 0
    for found in _MARKED.finditer(text):
        parts.append(_escape(text[end : found.start()]))
        literal, variable, page, option = found.group("literal", "variable", "page", "option")
        if literal is not None:
            # Each word is in bold of its own, so that a line may be broken between them.
            parts.append(" ".join(_bold(word) for word in literal.split(" ")))
        elif variable is not None:
            parts.append(" ".join(f"\\fI{_literal(word)}\\fR" for word in variable.split(" ")))
        else:
            parts.append(_bold(page or option))
        end = found.end()
    return "".join(parts) + _escape(text[end:])


def _bold(word: str) -> str:
    inner = _IN_LITERAL.sub(r"\\fI\1\\fB", _literal(word))
    return f"\\fB{inner}\\fR"


def _escape(text: str) -> str:
    """Return prose as troff: a hyphen stays a hyphen."""
    return text.replace("\\", "\\e")


def _literal(text: str) -> str:
    """Return what somebody may copy as troff: ASCII stays ASCII."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return text.replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
