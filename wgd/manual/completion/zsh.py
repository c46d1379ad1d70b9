"""Completion for zsh, by its own `_arguments`."""

from collections.abc import Iterator, Mapping
from typing import Final

from wgd.manual.completion.shared import NOTE, keywords_that_may_follow
from wgd.manual.syntax import Option, Program, Subcommand, Takes, Value

_ACTIONS: Final[Mapping[Takes, str]] = {
    Takes.ANYTHING: "",
    Takes.FILE: "_files",
    Takes.DIRECTORY: "_files -/",
    Takes.USER: "_users",
    Takes.GROUP: "_groups",
    Takes.INTERFACE: "@_interfaces",
    Takes.CONFIGURATION: "@_configurations",
    Takes.NEW_INTERFACE: "@_names",
    Takes.PEER: "@_peers",
}

_HELPERS: Final = """\
(( $+functions[@_names] )) || @_names() {
    local -a names=(/etc/wireguard/*.conf(N:t:r))
    _wanted interfaces expl interface compadd -a names
}

(( $+functions[@_configurations] )) || @_configurations() {
    _alternative 'names:interface:@_names' 'files:configuration file:_files -g "*.conf"'
}

(( $+functions[@_interfaces] )) || @_interfaces() {
    local -a names=(${=$(wgdctl show interfaces 2>/dev/null)})
    _wanted interfaces expl interface compadd -a names
}

(( $+functions[@_peers] )) || @_peers() {
    local -a keys=(${=$(wgdctl show "$words[2]" peers 2>/dev/null)})
    _wanted peers expl 'public key' compadd -a keys
}
"""

_KEYWORDS: Final = """\
(( $+functions[@_keywords] )) || @_keywords() {
    local -a fitting
    case $words[CURRENT-1] in"""


def zsh(program: Program) -> str:
    """Return the script, to be called `_NAME` in a directory of `fpath`."""
    lines = [f"#compdef {program.name}", NOTE, _HELPERS]
    for subcommand in program.subcommands:
        if subcommand.keywords:
            lines += [_KEYWORDS, *_keywords(subcommand)]
    lines += [
        "@() {",
        "    local curcontext=$curcontext state line expl",
        "    typeset -A opt_args",
    ]
    if program.subcommands:
        lines += _with_subcommands(program)
    else:
        command = Subcommand("", "", "", program.operands, options=program.options)
        lines += _arguments(command, indent=4)
    lines += ["}", "", '@ "$@"']
    return (
        "\n".join(lines)
        .replace("@_", f"_{program.name}_")
        .replace("\n@() {", f"\n_{program.name}() {{")
        .replace('\n@ "$@"', f'\n_{program.name} "$@"')
        + "\n"
    )


def _with_subcommands(program: Program) -> Iterator[str]:
    yield "    local -a commands=("
    for subcommand in program.subcommands:
        yield f"        {_quoted(f'{subcommand.name}:{subcommand.summary}')}"
    yield "    )"
    yield "    _arguments -C \\"
    yield from (f"        {spec} \\" for option in program.options for spec in _option(option))
    yield "        '1:subcommand:->subcommand' '*::arguments:->arguments'"
    yield "    case $state in"
    yield "        (subcommand) _describe subcommand commands ;;"
    yield "        (arguments)"
    yield "            case $words[1] in"
    for subcommand in program.subcommands:
        if subcommand.operands or subcommand.options:
            yield f"                ({subcommand.name})"
            yield from _arguments(subcommand, indent=20)
            yield "                    ;;"
    yield "            esac"
    yield "            ;;"
    yield "    esac"


def _arguments(subcommand: Subcommand, *, indent: int) -> list[str]:
    """Return the call of `_arguments` for options and operands."""
    specs = [spec for option in subcommand.options for spec in _option(option)]
    for number, value in enumerate(subcommand.operands, start=1):
        is_last = number == len(subcommand.operands)
        position = "*" if is_last and subcommand.repeats else str(number)
        specs.append(_quoted(f"{position}{_value(value)}"))
    if subcommand.keywords:
        specs.append("'*:keyword:@_keywords'")
    blank = " " * indent
    *before, last = (f"{blank}    {spec}" for spec in specs)
    return [f"{blank}_arguments \\", *(f"{line} \\" for line in before), last]


def _keywords(subcommand: Subcommand) -> Iterator[str]:
    for keyword in subcommand.keywords:
        if keyword.value:
            action = _ACTIONS[keyword.value.takes]
            name = _plain(keyword.value.name)
            yield f"        ({keyword.name}) {action or f'_message {_quoted(name)}'} ;;"
    yield "        (*)"
    yield "            if (( $words[(I)peer] )); then"
    yield f"                fitting=({_fitting(subcommand, of_peer=True)})"
    yield "            else"
    yield f"                fitting=({_fitting(subcommand, of_peer=False)})"
    yield "            fi"
    yield "            _wanted keywords expl keyword compadd -a fitting"
    yield "            ;;"
    yield "    esac"
    yield "}"
    yield ""


def _fitting(subcommand: Subcommand, *, of_peer: bool) -> str:
    return " ".join(keywords_that_may_follow(subcommand, of_peer=of_peer))


def _option(option: Option) -> Iterator[str]:
    """Yield what `_arguments` calls the specification of an option, for each of its names."""
    explained = f"[{_escaped(option.summary)}]"
    for name in option.names:
        if option.value is None:
            yield _quoted(f"{name}{explained}")
        else:
            # With a "=" or with a blank before the value.
            equals = "=" if name.startswith("--") else ""
            yield _quoted(f"{name}{equals}{explained}{_value(option.value)}")


def _value(value: Value) -> str:
    """Return `:message:action`."""
    name = _escaped(_plain(value.name))
    action = _ACTIONS[value.takes]
    if value.words:
        words = f"({' '.join(value.words)})"
        action = f"_alternative 'a:{name}:{action}' 'b:{name}:{words}'" if action else words
    return f":{name}:{action}"


def _plain(name: str) -> str:
    return name.replace("<", "").replace(">", "")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:").replace("[", "\\[").replace("]", "\\]")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
