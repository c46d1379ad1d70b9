"""What the scripts for all shells have in common."""

from typing import Final

from wgd.manual.syntax import Option, Program, Subcommand

NOTE: Final = "# Made by `python -m wgd.manual DIRECTORY`: change it there.\n"


def commands(program: Program) -> tuple[Subcommand, ...]:
    """Return the subcommands; of a program without, one with no name that is the program."""
    if program.subcommands:
        return program.subcommands
    return (Subcommand("", "", "", program.operands, options=program.options),)


def general_options(program: Program) -> tuple[Option, ...]:
    """Return the options before a subcommand."""
    return program.options if program.subcommands else ()


def named(program: Program) -> list[tuple[str, Option]]:
    """Return every option, each with the subcommand it belongs to, "" for none."""
    general = [("", option) for option in general_options(program)]
    return general + [(each.name, option) for each in commands(program) for option in each.options]


def valued(options: tuple[Option, ...]) -> list[str]:
    """Return the names of the options that take a value."""
    return [name for option in options if option.value for name in option.names]


def keywords_that_may_follow(subcommand: Subcommand, *, of_peer: bool) -> list[str]:
    """Return the keywords that may stand behind a `peer`, or before the first."""
    return [
        each.name for each in subcommand.keywords if each.of_peer == of_peer or each.name == "peer"
    ]
