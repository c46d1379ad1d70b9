"""The two programs as data: `wgd` from its argument parser, `wgdctl` from its usage."""

import argparse
from collections.abc import Mapping
from typing import Final

from wgd import cli
from wgd.ctl import usage
from wgd.manual.syntax import Option, Program, Takes, Value

_TAKES: Final[Mapping[str, Takes]] = {
    "DIR": Takes.DIRECTORY,
    "FILE": Takes.FILE,
    "GROUP": Takes.GROUP,
    "NAME": Takes.USER,
}


def wgd() -> Program:
    """Return the daemon: options in the order of `wgd --help`."""
    parser = cli.make_parser({})
    options = tuple(
        _option(action)
        for action in parser._actions  # noqa: SLF001 - argparse lists them nowhere else
        if action.option_strings and action.help != argparse.SUPPRESS
    )
    return Program("wgd", options, operands=(Value("INTERFACE", Takes.NEW_INTERFACE),))


def wgdctl() -> Program:
    """Return the tool."""
    general = (
        Option(("-h", "--help"), "show how to use wgdctl, or after a subcommand that one"),
        Option(("-v", "--version"), "show the version"),
    )
    return Program("wgdctl", (*usage.OPTIONS, *general), subcommands=usage.SUBCOMMANDS)


def _option(action: argparse.Action) -> Option:
    names = tuple(action.option_strings)
    summary = action.help or "show the version"
    if action.nargs == 0:
        return Option(names, summary)
    if action.choices:
        words = tuple(map(str, action.choices))
        return Option(names, summary, Value("|".join(words), words=words))
    metavar = str(action.metavar)
    words = ("unix",) if metavar == "ADDRESS" else ()
    return Option(names, summary, Value(metavar, _TAKES.get(metavar, Takes.ANYTHING), words))
