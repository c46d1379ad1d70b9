"""What the subcommands of `faults` share: their options, and tables as Markdown and JSON."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import Machine


@dataclass(frozen=True)
class Table:
    """A table; `notes` stand below it, a line each."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    notes: Sequence[str] = ()

    def as_markdown(self) -> str:
        """Return the table as GitHub's Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return f"### {self.title}\n\n{table}{notes}"


def parser(
    name: str, description: str | None, *, seeds: int, seconds: int
) -> argparse.ArgumentParser:
    """Return a parser of --seeds, --seconds and --json, to which a subcommand may add its own."""
    made = argparse.ArgumentParser(
        prog=f"benchmarks/faults {name}", description=description, allow_abbrev=False
    )
    made.add_argument("--seeds", type=int, default=seeds, help=f"how many (default: {seeds})")
    made.add_argument(
        "--seconds", type=int, default=seconds, help=f"begin nothing after (default: {seconds})"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return made


def write(tables: Sequence[Table], json_file: Path | None) -> None:
    """Print the tables with the machine below, and write them to `json_file` if one is given."""
    machine = Machine.this()
    for table in tables:
        sys.stdout.write(f"{table.as_markdown()}\n")
    sys.stdout.write(f"{machine}\n")
    if json_file is not None:
        figures = {"machine": asdict(machine), "tables": [asdict(table) for table in tables]}
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
