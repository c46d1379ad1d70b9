"""`wgdctl doctor`: the words on the command line, and an exit status that says how it is."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wgd.ctl import statuses
from wgd.ctl.doctor import render
from wgd.ctl.doctor.gather import Options, gather
from wgd.ctl.doctor.rules import examine
from wgd.ctl.errors import UsageError
from wgd.ctl.progress import Progress
from wgd.ctl.session import Session, report
from wgd.errors import WgdError
from wgd.uapi.client import DeviceNotFoundError

FINE: Final = 0
FAILED: Final = 1
PROBLEMS: Final = 2


def doctor(words: Sequence[str], session: Session) -> int:
    """Run `doctor`: return 0 if all is fine, 1 if an interface could not be examined, and 2 if
    there are problems.
    """
    names, options, is_json = _parse(words)
    client = session.client()
    named, names = names, names or statuses.names(client)
    if not names:
        raise WgdError("there is no interface to examine: see wgdctl where, or run this as root")
    reports = []
    has_failed = False
    with Progress() as progress:
        for name in names:
            progress.waits(f"examining {name}")
            try:
                facts = gather(name, client, options)
            except WgdError as error:
                if not named and isinstance(error, DeviceNotFoundError):
                    continue  # it has ended since it was listed
                report(error)
                has_failed = True
            else:
                reports.append(render.Report(facts, examine(facts)))
    if is_json:
        document = {each.facts.interface: render.as_object(each) for each in reports}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        width = shutil.get_terminal_size().columns
        coloured = session.is_coloured()
        texts = [render.text(each, width=width, is_coloured=coloured) for each in reports]
        sys.stdout.write("\n".join(texts))
    if any(each.has_problems() for each in reports):
        return PROBLEMS
    return FAILED if has_failed else FINE


def _parse(words: Sequence[str]) -> tuple[list[str], Options, bool]:
    """Return interfaces, options and whether JSON is wanted. Raises UsageError."""
    names: list[str] = []
    probes, is_json = True, False
    file: Path | None = None
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if word == "--json":
            is_json = True
        elif word == "--no-probe":
            probes = False
        elif option == "--config":
            if not equals:
                value = rest.pop(0) if rest else ""
            if not value:
                raise UsageError("--config needs the name of a file")
            file = Path(value)
        elif word.startswith("-") or not word:
            raise UsageError(f"there is no option {word!a}")
        else:
            names.append(word)
    if len(names) > 1:
        raise UsageError(f"one interface at a time, or none for all, not {' '.join(names)!a}")
    return names, Options(probes, file), is_json
