"""The shells themselves, asked what they would offer at the end of a line."""

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

SCRIPTS: Final = Path(__file__).parents[2] / "packaging" / "completion"

# `compadd` gets every word that zsh is about to offer; -O leaves those that fit in an array.
_ZSH: Final = r"""
PROMPT=''
# Without the hundreds of programs that zsh knows, which take a second to look through.
unix=(${(M)fpath:#*/Unix}) fpath=(SCRIPTS ${(M)fpath:#*(/Base|/Completion)})
autoload -Uz compinit
compinit -u -D
fpath+=($unix)
autoload -Uz ${^unix}/_*(N:t)
list() {
    compadd() {
        if [[ $* != *-[OAD]* ]]; then
            local -a __fitting
            builtin compadd -O __fitting "$@"
            print -l -- "<"${^__fitting}">"
        fi
        builtin compadd "$@"
    }
    _main_complete
    print END
}
zle -C list complete-word list; bindkey '^X' list; print READY
"""

_BASH: Final = r"""
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
read -ra COMP_WORDS <<<"$2"
[[ $2 != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function=$(complete -p "${COMP_WORDS[0]}" | sed 's/.*-F \([^ ]*\) .*/\1/')
"$function"
printf '%s\n' "${COMPREPLY[@]}"
"""


def bash(line: str, programs: Path) -> set[str]:
    """Return the words that bash gets from the function that completes this command."""
    name = line.split()[0]
    return set(_run(["bash", "-c", _BASH, "-", SCRIPTS / f"{name}.bash", line], programs).split())


def zsh(line: str, programs: Path) -> set[str]:
    """Return the words that an interactive zsh would insert or list."""
    (programs / ".zshrc").write_text(_ZSH.replace("SCRIPTS", str(SCRIPTS)))
    with Terminal(["zsh", "--no-global-rcs", "-i"], programs) as terminal:
        terminal.read_until("READY")
        terminal.type(f"{line}\x18")
        return set(re.findall(r"<([^<>\s]+)>", terminal.read_until("END")))


def fish(line: str, programs: Path) -> set[str]:
    """Return the words that fish would list, without their descriptions."""
    name = line.split()[0]
    script = "source $argv[1]; complete -C $argv[2]"
    out = _run(
        ["fish", "--no-config", "-c", script, SCRIPTS / f"{name}.fish", line],
        programs,
    )
    return {answer.split("\t")[0] for answer in out.splitlines() if answer}


Shell = Callable[[str, Path], set[str]]
ALL: Final[dict[str, Shell]] = {"bash": bash, "zsh": zsh, "fish": fish}


class Terminal:
    """An interactive shell on a terminal of its own, ended with the block."""

    def __init__(self, command: Sequence[str], programs: Path) -> None:
        self._fd, inner = pty.openpty()
        self._shell = subprocess.Popen(
            command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=_environment(programs),
            start_new_session=True,
        )
        os.close(inner)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._fd)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def read_until(self, text: str) -> str:
        said = ""
        end = time.monotonic() + 20
        while text not in said:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, said
            said += os.read(self._fd, 4096).decode()
        return said


def _environment(programs: Path) -> dict[str, str]:
    # No colours or titles between the words, and nothing of who runs the tests.
    path = f"{programs}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(programs), "TERM": "dumb", "PS1": "", "LC_ALL": "C.UTF-8"}


def _run(command: Sequence[str | Path], programs: Path) -> str:
    done = subprocess.run(
        command,
        env=_environment(programs),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout
