"""`where`: every place that is looked into, what was found there, and what was left out and why."""

import sys
from collections.abc import Sequence

from wgd.ctl.errors import UsageError
from wgd.ctl.session import Session, printable
from wgd.uapi.discovery import Survey


def where(words: Sequence[str], session: Session) -> int:
    """Run `where`."""
    if words:
        raise UsageError("")
    sys.stdout.write(survey_text(session.client().survey()))
    return 0


def survey_text(survey: Survey) -> str:
    """Return a paragraph for each place in the order of the search, then what was left out."""
    lines = []
    for place in survey.places:
        lines.append(f"place: {printable(place)}")
        found = [socket for socket in survey.sockets if socket.place == place]
        lines += [f"  {socket.name}: {printable(socket.path)}" for socket in found]
        if not found:
            lines.append("  (nothing)")
    if survey.notes:
        lines.append("left out:")
        lines += [f"  {printable(note.path)}: {note.reason}" for note in survey.notes]
    return "\n".join(lines) + "\n"
