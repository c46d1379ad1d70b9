"""`top` as text: columns that fit a width, one line a peer, and all there is to say of one peer.

Everything a daemon says passes `printable`: a stranger's bytes may be in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wgd.constants import SECOND_NS
from wgd.ctl.top.model import Row, Sort
from wgd.diagnosis import IN_WORDS
from wgd.status import DeviceStatus, PeerStatus

BARS: Final = "▁▂▃▄▅▆▇█"
SHORT_KEY: Final = 8
MAX_ALLOWED_IPS: Final = 4

_UNITS: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_AGES: Final = ((86_400, "d"), (3_600, "h"), (60, "m"))
_ENDPOINT: Final = (21, 47)  # of IPv4, of the longest there is
_SPARKLINE: Final = (10, 40)
_NOTE: Final = (13, 26)
_INTERFACE: Final = (5, 10)


@dataclass(frozen=True, slots=True)
class Layout:
    """The widths of the columns that differ; 0 leaves a column out."""

    interface: int
    endpoint: int
    sparkline: int
    note: int

    @classmethod
    def of(cls, width: int, interfaces: Sequence[str] = ()) -> "Layout":
        """Return what fits `width`; with more than one of `interfaces` each row says its own.

        80 columns are enough for all of it; on fewer the note and then the sparkline go.
        """
        name = 0
        if len(interfaces) > 1:
            name = min(max(_INTERFACE[0], *map(len, interfaces)), _INTERFACE[1]) + 1
        # The peer and a blank, the age, two rates, each after a blank.
        free = width - name - (SHORT_KEY + 1) - 6 - 2 * 9
        endpoint, sparkline, note = _ENDPOINT[0], _SPARKLINE[0] + 1, _NOTE[0] + 1
        if free < endpoint + sparkline + note:
            endpoint = max(9, min(endpoint, free - sparkline - note))
        if free < endpoint + sparkline + note:
            note = 0
        if free < endpoint + sparkline:
            sparkline = 0
        spare = max(0, free - endpoint - sparkline - note)
        if note:
            more = min(spare // 3, _NOTE[1] - _NOTE[0])
            note, spare = note + more, spare - more
        more = min(spare, _ENDPOINT[1] - endpoint)
        endpoint, spare = endpoint + more, spare - more
        if sparkline:
            sparkline += min(spare, _SPARKLINE[1] - _SPARKLINE[0])
        return cls(name, endpoint, sparkline, note)

    def heading(self, sort: Sort, *, is_reversed: bool) -> str:
        """Return the headings, that of the order marked."""

        def title(column: Sort) -> str:
            return (
                f"{column.value}{'▴' if is_reversed else '▾'}" if column is sort else column.value
            )

        return self._line(
            "IFACE",
            title(Sort.PEER),
            title(Sort.ENDPOINT),
            title(Sort.HANDSHAKE),
            title(Sort.RECEIVED),
            title(Sort.SENT),
            "TRAFFIC",
            title(Sort.NOTE),
        )

    def line(self, row: Row) -> str:
        """Return a peer on one line."""
        return self._line(
            row.interface,
            row.peer.public_key,
            row.peer.endpoint or "-",
            age(row.now_ns, row.peer.last_handshake_ns),
            size(row.received_rate) if row.received_rate else "0",
            size(row.sent_rate) if row.sent_rate else "0",
            sparkline(row.history, self.sparkline - 1),
            row.note(),
        )

    def _line(
        self,
        interface: str,
        peer: str,
        endpoint: str,
        handshake: str,
        received: str,
        sent: str,
        traffic: str,
        note: str,
    ) -> str:
        cells = [f"{cut(interface, self.interface - 1)} "] if self.interface else []
        cells += [
            f"{cut(peer, SHORT_KEY)} ",
            cut_middle(endpoint, self.endpoint),
            f" {handshake[:5]:>5}",
            f" {received:>8}",
            f" {sent:>8}",
        ]
        if self.sparkline:
            cells.append(f" {cut(traffic, self.sparkline - 1)}")
        if self.note:
            cells.append(f" {cut(note, self.note - 1)}")
        return "".join(cells)


# -- an interface, and all of a peer -----------------------------------------------------------


def device_line(status: DeviceStatus, received_rate: float, sent_rate: float) -> str:
    """Return an interface on one line."""
    sessions = sum(peer.has_session for peer in status.peers)
    words = [
        printable(status.interface),
        f"{sessions} of {len(status.peers)} up",
        f"rx {size(received_rate)}/s",
        f"tx {size(sent_rate)}/s",
    ]
    if not status.version:
        words.append("(another daemon: counters only)")
    else:
        if not status.is_up:
            words.append("DOWN")
        if status.is_under_load:
            words.append("UNDER LOAD")
        counts = status.handshakes
        words.append(f"handshakes {counts.answered + counts.accepted}")
        words.append(f"dropped {sum(status.drops.values())}")
    return "  ".join(words)


def details(row: Row | None) -> list[str]:
    """Return four lines on a peer: who, where, how much, and what failed last, in words."""
    if row is None:
        return ["no peer", "", "", ""]
    peer = row.peer
    where = peer.endpoint or "nowhere yet"
    if peer.configured_endpoint and peer.configured_endpoint != peer.endpoint:
        where += f" (configured: {peer.configured_endpoint})"
    handshake = age(row.now_ns, peer.last_handshake_ns)
    shaken = "no handshake yet" if handshake == "never" else f"handshake {handshake} ago"
    session = "a session" if peer.has_session else "no session"
    return [
        f"peer    {printable(peer.public_key)}",
        f"at      {printable(where)}, allowed {_allowed(peer)}",
        f"so far  {size(peer.received_bytes)} received, {size(peer.sent_bytes)} sent, {shaken}, "
        f"{session}",
        f"failed  {_last_failure(row)}",
    ]


def _allowed(peer: PeerStatus) -> str:
    shown = printable(", ".join(peer.allowed_ips[:MAX_ALLOWED_IPS]))
    more = len(peer.allowed_ips) - MAX_ALLOWED_IPS
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"


def _last_failure(row: Row) -> str:
    if not row.peer.failures:
        return "nothing yet"
    last = row.peer.failures[0]
    times = "once" if last.count == 1 else f"{last.count} times"
    when = f", last {age(row.now_ns, last.last_ns)} ago" if last.last_ns else ""
    detail = f" ({printable(last.detail)})" if last.detail else ""
    return f"{IN_WORDS[last.reason]}{detail}; {times}{when}"


# -- values ------------------------------------------------------------------------------------


def size(count: float) -> str:
    """Return bytes in at most eight columns, as `wg` names them."""
    for unit, name in _UNITS:
        if count >= unit:
            value = count / unit
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {name}"
    return f"{count:.0f} B"


def age(now_ns: int, then_ns: int) -> str:
    """Return how long ago `then_ns` was in at most five columns; "never" for 0."""
    if not then_ns:
        return "never"
    seconds = max(0, now_ns - then_ns) // SECOND_NS
    for unit, name in _AGES:
        if seconds >= unit:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last `width` values as bars, the highest one full; nothing is a blank."""
    shown = values[-width:] if width > 0 else ()
    highest = max(shown, default=0.0)
    if highest <= 0:
        return ""
    top = len(BARS) - 1
    return "".join(BARS[round(value / highest * top)] if value > 0 else " " for value in shown)


def printable(text: str) -> str:
    """Return text that a terminal can be sent: no escape sequences, no line breaks."""
    return "".join(each if each.isprintable() else "?" for each in text)


def cut(text: str, width: int) -> str:
    """Return printable text in exactly `width` columns; what it is cut to starts with it."""
    text = printable(text)
    return f"{text[:width]:{width}}"


def cut_middle(text: str, width: int) -> str:
    """Return printable text in exactly `width` columns, without its middle if it is too long."""
    text = printable(text)
    if len(text) > width:
        tail = (width - 1) // 2
        text = f"{text[: width - 1 - tail]}…{text[-tail:]}"
    return f"{text:{width}}"
