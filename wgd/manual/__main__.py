"""`python -m wgd.manual DIRECTORY`: write the man pages and the completions there."""

import sys
from collections.abc import Mapping
from pathlib import Path

from wgd.manual import completion, programs, wgd_page, wgdctl_page
from wgd.manual.roff import render


def files() -> Mapping[str, str]:
    """Return the content of each file, by its path below the directory."""
    made = {f"man/{page.name}.8": render(page) for page in (wgd_page.page(), wgdctl_page.page())}
    for program in (programs.wgd(), programs.wgdctl()):
        made[f"completion/{program.name}.bash"] = completion.bash(program)
        made[f"completion/_{program.name}"] = completion.zsh(program)
        made[f"completion/{program.name}.fish"] = completion.fish(program)
    return made


def main() -> None:
    """Write all files."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m wgd.manual DIRECTORY")
    for name, content in files().items():
        path = Path(sys.argv[1], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
