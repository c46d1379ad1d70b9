"""Completion for bash, with or without the package bash-completion."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from wgd.manual.completion.shared import (
    NOTE,
    commands,
    general_options,
    keywords_that_may_follow,
    named,
    valued,
)
from wgd.manual.syntax import Program, Subcommand, Takes, Value

_CALLS: Final[Mapping[Takes, tuple[str, ...]]] = {
    Takes.ANYTHING: (),
    Takes.FILE: ("@_files -f",),
    Takes.DIRECTORY: ("@_files -d",),
    Takes.USER: ("@_compgen -u",),
    Takes.GROUP: ("@_compgen -g",),
    Takes.INTERFACE: ("@_interfaces",),
    Takes.CONFIGURATION: ("@_names", "@_files -d", "@_files -f -X '!*.conf'"),
    Takes.NEW_INTERFACE: ("@_names",),
    Takes.PEER: ("@_peers",),
}

# Split anew at blanks only: bash splits at the "=" that a public key ends with, too.
_READ: Final = """\
@() {
    local line=${COMP_LINE:0:COMP_POINT} current='' command='' expected='' word
    local -a words=() operands=()
    COMPREPLY=()
    read -ra words <<<"$line"
    if [[ $line != *[[:space:]] ]]; then
        current=${words[-1]}
        unset 'words[-1]'
    fi
    for word in "${words[@]:1}"; do
        if [[ $expected ]]; then
            expected=''
            continue
        fi
        case "$command $word" in"""

_VALUE: Final = """\
        esac
    done
    if [[ ! $expected && $current == --*=* ]]; then
        expected="$command ${current%%=*}"
        current=${current#*=}
    fi
    case "$expected" in"""

# Not `compgen -W`, which would run what is in a name.
_HELPERS: Final = """\

@_words() {
    local word
    for word; do
        [[ $word != "$current"* ]] || COMPREPLY+=("$word")
    done
}

@_compgen() {
    local -a found
    mapfile -t found < <(compgen "$@" -- "$current")
    COMPREPLY+=("${found[@]}")
}

@_files() {
    compopt -o filenames 2>/dev/null
    @_compgen "$@"
}

@_names() {
    local path
    for path in /etc/wireguard/*.conf; do
        [[ ! -e $path ]] || { path=${path##*/} && @_words "${path%.conf}"; }
    done
}

@_interfaces() {
    local -a found
    read -ra found < <(wgdctl show interfaces 2>/dev/null)
    @_words "${found[@]}"
}

@_peers() {
    local -a found
    mapfile -t found < <(wgdctl show "${operands[0]}" peers 2>/dev/null)
    @_words "${found[@]}"
}
"""


def bash(program: Program) -> str:
    """Return the script, for bash 4.3 or newer."""
    lines = [f"# bash completion for {program.name}.", NOTE, _READ, *_reading(program), _VALUE]
    for name, option in named(program):
        if option.value:
            patterns = _alternatives(f"{name} {word}" for word in option.names)
            lines += _case(patterns, [*_offers(option.value), "return"])
    lines += ["        ?*) return ;;", "    esac", "    if [[ $current == -* ]]; then"]
    lines.append('        case "$command" in')
    options = [("", general_options(program)), *((c.name, c.options) for c in commands(program))]
    for name, some in options:
        if some:
            words = " ".join(word for option in some for word in option.names)
            lines += _case(f"'{name}'", [f"@_words {words}", "return"], indent=12)
    lines += ["        esac", "    fi"]
    if program.subcommands:
        names = " ".join(each.name for each in program.subcommands)
        lines += ["    if [[ ! $command ]]; then", f"        @_words {names}", "        return"]
        lines += ["    fi"]
    lines.append('    case "$command ${#operands[@]}" in')
    for subcommand in commands(program):
        lines += _operands(subcommand)
    lines += ["    esac", "}", _HELPERS, f"complete -F @ {program.name}"]
    return (
        "\n".join(lines)
        .replace("@_", f"_{program.name}_")
        .replace("\n@()", f"\n_{program.name}()")
        .replace("-F @", f"-F _{program.name}")
        + "\n"
    )


def _reading(program: Program) -> Iterator[str]:
    """Yield how each word before the current one is taken."""
    waits = [f"{name} {word}" for name, option in named(program) for word in valued((option,))]
    yield from _case(_alternatives(waits), ['expected="$command $word"'], indent=12)
    switches = {name: None for name, _ in named(program)}
    patterns = " | ".join(f"'{name} -'*" for name in switches)
    yield f"            {patterns}) ;;"
    if program.subcommands:
        yield "            ' '*) command=$word ;;"
    yield '            *) operands+=("$word") ;;'


def _operands(subcommand: Subcommand) -> Iterator[str]:
    """Yield what is offered after so many operands."""
    for number, value in enumerate(subcommand.operands):
        is_last = number == len(subcommand.operands) - 1
        pattern = f"'{subcommand.name} {number}'"
        if is_last and subcommand.repeats:
            pattern = f"'{subcommand.name} '*"
        yield from _case(pattern, _offers(value))
    if not subcommand.keywords:
        return
    yield f"        '{subcommand.name} '*)"
    yield '            case "${operands[-1]}" in'
    for keyword in subcommand.keywords:
        if keyword.value:
            yield from _case(keyword.name, _offers(keyword.value), indent=16)
    yield "                *)"
    yield "                    if [[ \" ${operands[*]} \" == *' peer '* ]]; then"
    yield f"                        @_words {_keywords(subcommand, of_peer=True)}"
    yield "                    else"
    yield f"                        @_words {_keywords(subcommand, of_peer=False)}"
    yield "                    fi"
    yield "                    ;;"
    yield "            esac"
    yield "            ;;"


def _keywords(subcommand: Subcommand, *, of_peer: bool) -> str:
    return " ".join(keywords_that_may_follow(subcommand, of_peer=of_peer))


def _offers(value: Value) -> list[str]:
    calls = list(_CALLS[value.takes])
    if value.words:
        calls.append(f"@_words {' '.join(value.words)}")
    return calls


def _case(pattern: str, body: Sequence[str], *, indent: int = 8) -> Iterator[str]:
    blank = " " * indent
    if len(body) < 2:
        yield f"{blank}{pattern}) {' '.join([*body, ';;'])}"
        return
    yield f"{blank}{pattern})"
    yield from (f"{blank}    {line}" for line in body)
    yield f"{blank}    ;;"


def _alternatives(patterns: Iterable[str]) -> str:
    return " | ".join(f"'{pattern}'" for pattern in patterns)
