"""Scripts with which bash, zsh and fish complete the words of a program.

They know subcommands, options and fixed words by themselves, and ask `wgdctl` for interfaces and
peers. Each takes a `Program` and writes what the shell's own conventions ask for.
"""

from wgd.manual.completion.bash import bash
from wgd.manual.completion.fish import fish
from wgd.manual.completion.zsh import zsh

__all__ = ["bash", "fish", "zsh"]
