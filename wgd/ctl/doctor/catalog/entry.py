"""What an entry of the catalog is."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How grave it is. Only problems change the exit status."""

    PROBLEM = "problem"
    """Something does not work, or will not."""
    WARNING = "warning"
    """Something may not work, or has not worked lately."""
    NOTE = "note"
    """Worth knowing, and it may be meant so."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of finding. `sentence` and `advice` are templates, `meaning` is for the guide."""

    id: str
    severity: Severity
    sentence: str
    meaning: str
    advice: tuple[str, ...]


PROBLEM, WARNING, NOTE = Severity.PROBLEM, Severity.WARNING, Severity.NOTE
