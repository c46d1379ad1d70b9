"""Completion for fish."""

from collections.abc import Iterator, Mapping
from typing import Final

from wgd.manual.completion.shared import (
    NOTE,
    commands,
    general_options,
    keywords_that_may_follow,
    named,
    valued,
)
from wgd.manual.syntax import Option, Program, Subcommand, Takes, Value

_CALLS: Final[Mapping[Takes, str]] = {
    Takes.ANYTHING: "",
    Takes.FILE: "(__fish_complete_path (commandline -ct))",
    Takes.DIRECTORY: "(__fish_complete_directories (commandline -ct))",
    Takes.USER: "(__fish_complete_users)",
    Takes.GROUP: "(__fish_complete_groups)",
    Takes.INTERFACE: "(@_interfaces)",
    Takes.CONFIGURATION: "(@_names) (@_files)",
    Takes.NEW_INTERFACE: "(@_names)",
    Takes.PEER: "(@_peers)",
}

_AT_FIRST: Final = "test (count (@_words)) -eq 0"

_HELPERS: Final = """\
# The words before the current one, without options and their values.
function @_words
    set -l tokens (commandline -opc)
    set -l skips no
    set -l command
    for token in $tokens[2..]
        if test $skips = yes
            set skips no
            continue
        end
        switch "$command $token"
            case @VALUED
                set skips yes
            case @SWITCHES
            case '*'
                @TAKE
                printf '%s\\n' $token
        end
    end
end

# @_at COMMAND NUMBER: so many operands of the command come before.
function @_at
    set -l words (@_words)
    test (count $words) -eq $argv[2]; and test "$words[1]" = "$argv[1]"
end

function @_in
    set -l words (@_words)
    test "$words[1]" = "$argv[1]"
end

# @_after COMMAND WORD…: one of the words comes just before.
function @_after
    set -l words (@_words)
    test (count $words) -ge 2
    and test "$words[1]" = "$argv[1]"
    and contains -- $words[-1] $argv[2..]
end

function @_names
    for path in /etc/wireguard/*.conf
        string replace -r '.*/(.*)\\.conf$' '$1' $path
    end
end

function @_files
    __fish_complete_path (commandline -ct) | string match -r '.*(?:/|\\.conf)(?=\t|$)'
end

function @_interfaces
    wgdctl show interfaces 2>/dev/null | string split ' '
end

function @_peers
    set -l words (@_words)
    wgdctl show $words[2] peers 2>/dev/null
end
"""


def fish(program: Program) -> str:
    """Return the script."""
    waits = " ".join(
        f"'{name} {word}'" for name, option in named(program) for word in valued((option,))
    )
    switches = " ".join(
        f"'{name} -*'" for name in dict.fromkeys(name for name, _ in named(program))
    )
    take = 'test -n "$command"; or set command $token' if program.subcommands else ""
    helpers = _HELPERS.replace("@VALUED", waits).replace("@SWITCHES", switches)
    lines = [f"# fish completion for {program.name}.", NOTE, helpers.replace("@TAKE", take)]
    lines.append("complete -c @ -f")
    lines += (_option(option, _AT_FIRST) for option in general_options(program))
    lines += (
        _line(_AT_FIRST, _quoted(subcommand.name), subcommand.summary)
        for subcommand in program.subcommands
    )
    for subcommand in commands(program):
        lines += _of_command(subcommand)
    text = "\n".join(lines).replace("complete -c @", f"complete -c {program.name}")
    return text.replace("@_", f"__{program.name}_") + "\n"


def _of_command(subcommand: Subcommand) -> Iterator[str]:
    offset = 1 if subcommand.name else 0
    for option in subcommand.options:
        yield _option(option, f"@_in {subcommand.name}" if offset else "")
    for number, value in enumerate(subcommand.operands, start=offset):
        condition = f"@_at {subcommand.name} {number}" if offset else _AT_FIRST
        if subcommand.repeats:
            condition = f"@_in {subcommand.name}"
        if words := _words(value):
            yield _line(condition, words, value.name.strip("<>"))
    if not subcommand.keywords:
        return
    taking = [each.name for each in subcommand.keywords if each.value]
    for keyword in subcommand.keywords:
        if keyword.value and (words := _words(keyword.value)):
            condition = f"@_after {subcommand.name} {keyword.name}"
            yield _line(condition, words, keyword.value.name.strip("<>"))
    free = (
        f"@_in {subcommand.name}; and test (count (@_words)) -ge 2; "
        f"and not @_after {subcommand.name} {' '.join(taking)}"
    )
    for test, of_peer in (("", True), ("not ", False)):
        words = " ".join(keywords_that_may_follow(subcommand, of_peer=of_peer))
        yield _line(f"{free}; and {test}contains peer (@_words)", f"'{words}'", "")


def _option(option: Option, condition: str) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    )
    value = ""
    if option.value:
        words = _words(option.value)
        value = f" -x -a {words}" if words else " -x"
    when = f" -n {_quoted(condition)}" if condition else ""
    return f"complete -c @{when} {names}{value} -d {_quoted(option.summary)}"


def _line(condition: str, words: str, summary: str) -> str:
    described = f" -d {_quoted(summary)}" if summary else ""
    return f"complete -c @ -n {_quoted(condition)} -a {words}{described}"


def _words(value: Value) -> str:
    words = " ".join(filter(None, (_CALLS[value.takes], *value.words)))
    return f"'{words}'" if words else ""


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
