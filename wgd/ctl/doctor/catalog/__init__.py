"""Every finding there is: its name, how grave it is, what is said, what it means, what to try.

The texts are templates: `{peer}` is a peer's short key and endpoint, `{key}` its whole key, the
rest is given by the rule. docs/troubleshooting.md is made of them (`guide`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from wgd.ctl.doctor.catalog import handshakes, interface, paths, peers, sessions
from wgd.ctl.doctor.catalog.entry import Entry, Severity

__all__ = ["CATALOG", "Entry", "Finding", "Severity", "find", "in_order"]

_ENTRIES: Final = (
    *interface.ENTRIES,
    *peers.ENTRIES,
    *paths.ENTRIES,
    *handshakes.ENTRIES,
    *sessions.ENTRIES,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found; `peer` is a public key, "" if it is about the interface."""

    id: str
    severity: Severity
    sentence: str
    advice: tuple[str, ...]
    peer: str = ""


CATALOG: Final[Mapping[str, Entry]] = {entry.id: entry for entry in _ENTRIES}
"""The entries by id, in the order in which findings are shown."""


def find(finding_id: str, *, public_key: str = "", **values: object) -> Finding:
    """Return the finding made of an entry's templates and `values`."""
    entry = CATALOG[finding_id]
    return Finding(
        entry.id,
        entry.severity,
        _filled(entry.sentence, values),
        tuple(_filled(line, values) for line in entry.advice),
        public_key,
    )


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings with the gravest first, then in the order of the catalog."""
    severities, ids = list(Severity), list(CATALOG)
    return tuple(
        sorted(
            findings,
            key=lambda finding: (severities.index(finding.severity), ids.index(finding.id)),
        )
    )


def _filled(template: str, values: Mapping[str, object]) -> str:
    """Return a template with its values, in what a terminal may be sent."""
    text = template.format_map(values).strip()
    return text if text.isprintable() else ascii(text)[1:-1]
