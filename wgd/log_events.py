"""The fields of a log record, for logs that programs read.

wgd logs `logger.info("%r event=name key=%s …", peer, value, …)`. The template says where each value
begins and ends, whatever is in it, so the fields come from the template and its arguments, and no
text is taken apart.
"""

import logging
import re
from typing import Final

Field = str | int

RESERVED: Final = frozenset({"time", "level", "interface", "exception"})
"""Fields that every line has or may have; an event has none of these names."""

_CONVERSION: Final = re.compile(r"%(?:%|[-#0 +]*[0-9]*(?:\.[0-9]+)?[a-zA-Z])")
_QUOTED: Final = re.compile(r"'[^'%]*'")
_FIELD: Final = rf"([a-z][a-z0-9_]*)=({_QUOTED.pattern}|\S+)"
_EVENT: Final = re.compile(rf"(?:(%[rs]) )?{_FIELD}(?: {_FIELD})*")
_EACH_FIELD: Final = re.compile(_FIELD)


def read_event(record: logging.LogRecord) -> dict[str, Field]:
    """Return the fields of an event; what stands before them is the `peer`.

    What a whole number was given for is a number, all else text, without quotes. A record that is
    not of this form (another library's) has one field, `message`.
    """
    template = str(record.msg)
    match = _EVENT.fullmatch(template)
    arguments = record.args or ()
    if match is None or not isinstance(arguments, tuple) or _count(template) != len(arguments):
        return {"message": record.getMessage()}
    rest = list(arguments)
    fields: dict[str, Field] = {}
    if match[1]:
        fields["peer"] = str(rest.pop(0))
    for name, value in _EACH_FIELD.findall(template):
        count = _count(value)
        fields[name] = _value(value, tuple(rest[:count]))
        del rest[:count]
    return fields


def printable(line: str) -> str:
    """Return `line` as one line: what cannot be printed is escaped."""
    if line.isprintable():
        return line
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in line
    )


def _count(template: str) -> int:
    """Return how many arguments a template takes."""
    return sum(conversion != "%%" for conversion in _CONVERSION.findall(template))


def _value(template: str, arguments: tuple[object, ...]) -> Field:
    if len(arguments) == 1 and template in ("%d", "%s", "%r"):
        (argument,) = arguments
        return argument if type(argument) is int else str(argument)
    if _QUOTED.fullmatch(template):
        return template[1:-1]
    return template % arguments
