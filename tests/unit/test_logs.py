"""Log lines as they come out: one event a line, as text or as JSON, at a level that can change."""

import ast
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wgd
from wgd import log_events
from wgd.configuration import LOG_LEVELS
from wgd.log_events import RESERVED, printable, read_event
from wgd.logs import LEVELS

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=info interface=wg7 event=something value=3\n"
)

START = """\
import logging
from wgd.logs import Logs
logs = Logs({level!r}, "wg7", {log_format!r})
log = logging.getLogger("some.module")
"""


def run(
    program: str,
    level: str = "verbose",
    log_format: str = "text",
    stdout: int | BinaryIO = subprocess.PIPE,
) -> list[str]:
    """Return the lines that a process of its own logs: it is the log of the whole process."""
    start = START.format(level=level, log_format=log_format)
    completed = subprocess.run(
        [sys.executable, "-c", f"{start}{program}\nlogs.close()\n"],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    assert completed.stderr == ""
    return (completed.stdout or "").splitlines(keepends=True)


# -- text ------------------------------------------------------------------------------------------


def test_a_line_has_time_level_interface_and_the_event() -> None:
    (line,) = run('log.info("event=%s value=%d", "something", 3)')
    assert LINE.fullmatch(line), line


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    lines = run(
        'log.info("event=x reason=%s", "a\\nlevel=error event=forged\\x1b[2J\\udc80")\n'
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('event=y')\n"
    )
    assert len(lines) == 2
    assert all(line[:-1].isprintable() for line in lines)
    assert "ZeroDivisionError" in lines[1]


def test_whoever_logs_does_not_fail_because_of_it() -> None:
    lines = run('log.info("event=x n=%d", "no number")\nlog.info("event=y")')
    assert [line.split()[-1] for line in lines] == ["event=y"]


FULL = """
import resource, time
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (120, hard))  # a line and a half
for _ in range(3):
    log.info("event=something value=%d", 3)
while logs._handler.lost < 2:
    time.sleep(0.001)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.info("event=kept")
while logs._handler.lost:
    time.sleep(0.001)
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_full_disk_costs_lines_and_their_number_is_told(log_format: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        run(FULL, log_format=log_format, stdout=file)
    whole, cut, *others = (tmp_path / "log").read_text().splitlines(keepends=True)
    assert "something" in whole
    assert whole.startswith(cut[:12])
    assert len(cut) < len(whole)
    assert ["kept" in line for line in others] == [True, False]
    assert re.search(r"event=log_lines_lost count=2|log_lines_lost.*\"count\": 2", others[1])


# -- levels ----------------------------------------------------------------------------------------

EACH_LEVEL = "\n".join(
    f'log.{name}("event={name}")' for name in ("debug", "info", "warning", "error")
)


def test_the_levels_have_the_names_that_are_configured() -> None:
    assert set(LEVELS) == set(LOG_LEVELS)


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("verbose", ["debug", "info", "warning", "error"]),
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("error", ["error"]),
        ("silent", []),
    ],
)
def test_what_is_logged_at_each_level(level: str, events: list[str]) -> None:
    assert [line.split("event=")[1].strip() for line in run(EACH_LEVEL, level)] == events


def test_the_level_can_be_changed_and_that_is_said() -> None:
    lines = run(
        'log.info("event=unseen")\n'
        'logs.set_level("info")\n'
        'log.info("event=seen")\n'
        'log.debug("event=unseen")\n'
        'logs.set_level("error")\n'
        'log.info("event=unseen")\n'
        'logs.set_level("error")\n'
        "assert logs.level == 'error'",
        "error",
    )
    assert [line.split("event=")[1].strip() for line in lines] == [
        "log_level_changed to=info",
        "seen",
        "log_level_changed to=error",
    ]


def test_an_unknown_level_changes_nothing() -> None:
    run(
        "try:\n    logs.set_level('loud')\nexcept KeyError:\n    pass\n"
        "else:\n    raise SystemExit(1)\n"
        "assert logs.level == 'error'",
        "error",
    )


@pytest.mark.parametrize(
    ("chosen", "levels"),
    [
        ("error", ["verbose", "error", "verbose"]),
        ("silent", ["verbose", "silent", "verbose"]),
        ("verbose", ["error", "verbose", "error"]),
        ("debug", ["error", "verbose", "error"]),
    ],
)
def test_toggling_goes_between_verbose_and_what_was_chosen(chosen: str, levels: list[str]) -> None:
    program = "".join(
        f"logs.toggle_verbose()\nassert logs.level == {level!r}, logs.level\n" for level in levels
    )
    run(program, chosen)
    run(f"logs.set_level({chosen!r})\n{program}", "info")


# -- JSON ------------------------------------------------------------------------------------------


def test_a_json_line_has_time_level_interface_and_every_field() -> None:
    (line,) = run(
        'log.warning("%r event=x port=%d reason=%s path=%r", {1}, 7, "a b=c", "/x y")',
        log_format="json",
    )
    document = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document.pop("time"))
    assert document == {
        "level": "warning",
        "interface": "wg7",
        "peer": "{1}",
        "event": "x",
        "port": 7,
        "reason": "a b=c",
        "path": "/x y",
    }


def test_what_others_log_is_a_message_and_an_exception_one_line() -> None:
    lines = run(
        'log.error("Task exception was never retrieved\\nfuture: %r", "f\\udc80")\n'
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('event=y')\n",
        log_format="json",
    )
    first, second = map(json.loads, lines)
    assert first["message"].startswith("Task exception was never retrieved\nfuture: ")
    assert second["event"] == "y"
    assert "ZeroDivisionError" in second["exception"]


# -- the fields of an event ------------------------------------------------------------------------


def record(template: Any, *arguments: Any) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "x.py", 1, template, arguments, None)


@pytest.mark.parametrize(
    ("template", "arguments", "fields"),
    [
        ("event=ready", (), {"event": "ready"}),
        ("event=%s", ("link_up",), {"event": "link_up"}),
        ("event=x n=%d", (-3,), {"event": "x", "n": -3}),
        ("event=x n=%s", (3,), {"event": "x", "n": 3}),
        ("event=x n=%s", ("3",), {"event": "x", "n": "3"}),
        ("event=x n=%s", (True,), {"event": "x", "n": "True"}),
        ("event=x n=%.1f", (2.25,), {"event": "x", "n": "2.2"}),
        ("event=x n=%#x", (255,), {"event": "x", "n": "0xff"}),
        ("event=x at=%s:%s", ("a.py", 7), {"event": "x", "at": "a.py:7"}),
        ("event=x part=%d%%", (7,), {"event": "x", "part": "7%"}),
        ("%r event=x a=%r", ("p", "it's"), {"peer": "p", "event": "x", "a": "it's"}),
        ("event=x why='two words' n=%d", (1,), {"event": "x", "why": "two words", "n": 1}),
        ("plain words", (), {"message": "plain words"}),
        ("event=x and words", (), {"message": "event=x and words"}),
        ("100% sure", (), {"message": "100% sure"}),
        ("", (), {"message": ""}),
    ],
)
def test_fields(template: str, arguments: tuple[Any, ...], fields: dict[str, Any]) -> None:
    assert read_event(record(template, *arguments)) == fields


def test_a_mapping_as_the_argument_is_somebody_elses() -> None:
    assert read_event(record("a=%(b)s", {"b": 1})) == {"message": "a=1"}


@given(st.text(), st.text(), st.integers())
def test_no_value_can_pretend_to_be_a_field(one: str, other: str, number: int) -> None:
    event = record("event=x one=%s other=%r number=%d", one, other, number)
    assert read_event(event) == {"event": "x", "one": one, "other": other, "number": number}


@given(st.text())
def test_printable_is_one_line_and_leaves_alone_what_is(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def logged_in_wgd() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger in the package."""
    for path in Path(wgd.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"debug", "info", "warning", "error", "exception", "critical"}
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "logger"
            ):
                yield f"{path}:{node.lineno}", node


def test_all_that_wgd_logs_is_an_event_with_fields() -> None:
    calls = list(logged_in_wgd())
    assert len(calls) > 20
    for place, call in calls:
        template = call.args[0]
        assert isinstance(template, ast.Constant), f"{place}: not a template"
        arguments = range(log_events._count(str(template.value)))
        fields = read_event(record(template.value, *arguments))
        assert "event" in fields, f"{place}: {template.value!r} is no event"
        assert not RESERVED & fields.keys(), f"{place}: a reserved name"
