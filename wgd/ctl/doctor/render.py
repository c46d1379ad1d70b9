"""Findings for people, as paragraphs, and for programs, as JSON."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wgd.constants import SECOND_NS
from wgd.ctl.doctor.catalog import Finding, Severity
from wgd.ctl.doctor.facts import Facts, Source
from wgd.ctl.doctor.rules.common import ago
from wgd.status import DeviceStatus, PeerStatus

MAX_OF_A_KIND: Final = 8
"""Findings of one kind that are shown in full; of the rest the number is."""
MAX_WIDTH: Final = 100

_RESET: Final = "\x1b[0m"
_COLOURS: Final = {
    Severity.PROBLEM: "\x1b[1m\x1b[31m",
    Severity.WARNING: "\x1b[1m\x1b[33m",
    Severity.NOTE: "\x1b[1m\x1b[36m",
}
_SOURCES: Final = {
    Source.STATUS: "its daemon's own account",
    Source.WATCH: "what may be watched without root",
    Source.GET: "what `wg show` shows",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found about one interface."""

    facts: Facts
    findings: Sequence[Finding]

    def has_problems(self) -> bool:
        """Whether something does not work."""
        return any(finding.severity is Severity.PROBLEM for finding in self.findings)


def text(report: Report, *, width: int, is_coloured: bool) -> str:
    """Return a report in paragraphs of lines no longer than `width`."""
    width = min(width, MAX_WIDTH)
    lines = [*_wrapped(_headline(report), width)]
    for severity in Severity:
        for finding in _first_of_each_kind(report.findings, severity):
            label = severity.upper()
            words = _wrapped(f"{label}: {finding.sentence} [{finding.id}]", width)
            if is_coloured:
                words[0] = words[0].replace(label, f"{_COLOURS[severity]}{label}{_RESET}", 1)
            lines += ["", *words]
            for advice in finding.advice:
                lines += _wrapped(f"- {advice}", width, indent="  ", hanging="    ")
    lines += _left_out(report.findings)
    if (device := report.facts.device) is not None:
        lines += ["", *_summary(report.facts, device, width)]
    return "\n".join(lines) + "\n"


def as_object(report: Report) -> dict[str, Any]:
    """Return a report as what `json.dumps` takes.

    { "interface", "result": "fine" | "problems", "source": who told of it,
      "findings": [ { "id", "severity", "sentence", "advice": [...], "peer": public key or "" } ],
      "not_looked_at": [ { "what", "why" } ] }
    """
    return {
        "interface": report.facts.interface,
        "result": "problems" if report.has_problems() else "fine",
        "source": str(report.facts.source),
        "findings": [
            {
                "id": finding.id,
                "severity": str(finding.severity),
                "sentence": finding.sentence,
                "advice": list(finding.advice),
                "peer": finding.peer,
            }
            for finding in report.findings
        ],
        "not_looked_at": [{"what": each.what, "why": each.why} for each in report.facts.unseen],
    }


def _headline(report: Report) -> str:
    counts = Counter(finding.severity for finding in report.findings)
    parts = [
        f"{counts[severity]} {severity}{'s' if counts[severity] > 1 else ''}"
        for severity in Severity
        if counts[severity]
    ]
    fine = "everything looks fine"
    if not parts:
        return f"{report.facts.interface}: {fine}."
    if set(counts) <= {Severity.NOTE}:
        return f"{report.facts.interface}: {fine} ({parts[0]})."
    return f"{report.facts.interface}: {', '.join(parts)}."


def _first_of_each_kind(findings: Sequence[Finding], severity: Severity) -> Iterator[Finding]:
    shown: Counter[str] = Counter()
    for finding in findings:
        shown[finding.id] += 1
        if finding.severity is severity and shown[finding.id] <= MAX_OF_A_KIND:
            yield finding


def _left_out(findings: Sequence[Finding]) -> Iterator[str]:
    for kind, count in Counter(finding.id for finding in findings).items():
        if count > MAX_OF_A_KIND:
            yield f"… and {count - MAX_OF_A_KIND} more of [{kind}]; --json has them all."


def _summary(facts: Facts, device: DeviceStatus, width: int) -> Iterator[str]:
    """Yield what was looked at and what was not."""
    connected = sum(peer.has_session for peer in device.peers)
    mtu = f", MTU {facts.link.mtu}" if facts.link is not None else ""
    peers = f"{len(device.peers)} peer{'s' if len(device.peers) != 1 else ''}"
    yield from _wrapped(
        f"Looked at: {_SOURCES[facts.source]}; port {device.listen_port or 'none'}{mtu}; {peers}, "
        f"{connected} with a session{_latest(facts, device.peers)}.",
        width,
    )
    for each in facts.unseen:
        yield from _wrapped(f"Not looked at: {each.what} ({each.why}).", width, hanging="  ")


def _latest(facts: Facts, peers: Sequence[PeerStatus]) -> str:
    latest_ns = max((peer.last_handshake_ns for peer in peers), default=0)
    if not latest_ns or latest_ns > facts.now_ns + SECOND_NS:
        return ""
    return f", the latest handshake {ago(facts.now_ns - latest_ns)}"


def _wrapped(line: str, width: int, *, indent: str = "", hanging: str = "") -> list[str]:
    printable = line if line.isprintable() else ascii(line)[1:-1]
    return textwrap.wrap(
        printable,
        width,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
