"""`top` on a terminal: looks once an interval, in a thread, and shows what came of it."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import ClassVar, Final

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from wgd.ctl.top.cells import Layout, details, device_line, printable
from wgd.ctl.top.model import Model, Row, Sort
from wgd.ctl.top.sources import Reading
from wgd.ctl.top.table import PeerTable

INTERVALS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds that + and - go through."""

MAX_DEVICE_LINES: Final = 4

HELP: Final = """\
wgdctl top

  up, down, page up, page down, home, end   select a peer
  s          sort by the next column    S   by the one before
  r          turn the order round
  /          show only peers with a text in key, address or note
  escape     show all peers again
  i          show the next interface only, after the last one all
  p, space   pause: look no more         + - look more often, or less
  q          leave

AGE is the time since the last handshake; a peer in use shakes hands
every two minutes. NOTE is what lies in the way of packets now, or
what has failed in the last minute; the lines below the table say it
in words. Bytes are those of UDP, handshakes and keepalives included.

Any key closes this."""

_KEYS: Final = "q quit  / filter  s sort  r reverse  i interface  p pause  +- interval  ? help"


class HelpScreen(ModalScreen[None]):
    """What keys and columns mean."""

    def compose(self) -> ComposeResult:
        """Make the text."""
        yield Static(HELP, markup=False)

    def on_key(self) -> None:
        """Close."""
        self.dismiss()


class TopApp(App[None]):
    """The screen. `read` may block for some seconds; it is called in a thread."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #devices { height: auto; }
    #heading { height: 1; text-style: bold; }
    PeerTable { height: 1fr; scrollbar-size: 1 1; }
    #details { height: 5; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    #keys { height: 1; text-style: dim; }
    HelpScreen { align: center middle; }
    HelpScreen Static { width: auto; height: auto; border: round; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit"),
        Binding("ctrl+c", "quit", priority=True),
        Binding("s", "sort(1)"),
        Binding("S", "sort(-1)"),
        Binding("r", "reverse"),
        Binding("slash", "filter"),
        Binding("escape", "clear"),
        Binding("i", "interface"),
        Binding("p,space", "pause"),
        Binding("plus", "interval(-1)"),
        Binding("minus", "interval(1)"),
        Binding("question_mark,h", "help"),
    ]

    def __init__(self, read: Callable[[], Reading], interval_seconds: float) -> None:
        super().__init__(ansi_color=True)
        self._read = read
        self._interval_seconds = interval_seconds
        self._model = Model()
        self._problems: tuple[str, ...] = ()
        self._has_looked = False
        self._sort = Sort.RECEIVED
        self._is_reversed = False
        self._text = ""
        self._interface = ""
        self._is_paused = False
        self._changed = asyncio.Event()

    def compose(self) -> ComposeResult:
        """Make the lines from top to bottom."""
        with Vertical():
            yield Static("looking for interfaces", id="devices", markup=False)
            yield Static("", id="heading", markup=False)
            yield PeerTable()
            yield Static("", id="details", markup=False)
            yield Input(placeholder="text in key, address or note", id="filter", compact=True)
            yield Static(_KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one(PeerTable).focus()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(number, self.exit)
        self.run_worker(self._look(), exclusive=True)

    def on_resize(self) -> None:
        """Lay the lines out anew."""
        self.call_after_refresh(self._show)

    async def _look(self) -> None:
        while True:
            if not self._is_paused:
                reading = await asyncio.to_thread(self._read)
                self._model.update(reading.statuses)
                self._problems = reading.problems
                self._has_looked = True
                self._show()
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._is_paused else self._interval_seconds):
                    await self._changed.wait()

    # -- what is shown -----------------------------------------------------------------------------

    def _show(self) -> None:
        if not self._has_looked:
            return
        names = [status.interface for status in self._model.statuses]
        if self._interface not in names:
            self._interface = ""
        rows = self._model.rows(
            self._sort,
            is_reversed=self._is_reversed,
            text=self._text,
            interface=self._interface,
        )
        layout = Layout.of(self.size.width - 1, [] if self._interface else names)
        self.query_one("#devices", Static).update("\n".join(self._device_lines()))
        heading = layout.heading(self._sort, is_reversed=self._is_reversed)
        self.query_one("#heading", Static).update(heading)
        self.query_one(PeerTable).show(rows, layout)
        self._show_details()
        self._show_keys(len(rows))

    def _device_lines(self) -> list[str]:
        shown = [each for each in self._model.statuses if self._interface in ("", each.interface)]
        lines = [device_line(each, *self._model.rates(each)) for each in shown]
        lines += [printable(problem) for problem in self._problems]
        if not lines:
            lines = ["there is no interface of a userspace daemon here (see: wgdctl where)"]
        if len(lines) > MAX_DEVICE_LINES:
            more = len(lines) - MAX_DEVICE_LINES + 1
            lines[MAX_DEVICE_LINES - 1 :] = [f"and {more} more (i shows one at a time)"]
        return lines

    @on(PeerTable.Selected)
    def _show_details(self) -> None:
        row: Row | None = self.query_one(PeerTable).selected
        self.query_one("#details", Static).update("\n".join(details(row)))

    def _show_keys(self, count: int) -> None:
        words = []
        if self._is_paused:
            words.append("PAUSED")
        if self._text:
            words.append(f"{count} with {printable(self._text)!r}")
        keys = "  ".join([*words, _KEYS])
        self.query_one("#keys", Static).update(keys)

    # -- keys --------------------------------------------------------------------------------------

    def action_sort(self, step: int) -> None:
        """Order by the next column."""
        orders = list(Sort)
        self._sort = orders[(orders.index(self._sort) + step) % len(orders)]
        self._show()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._is_reversed = not self._is_reversed
        self._show()

    def action_interface(self) -> None:
        """Show the next interface only, after the last one all."""
        choices = ["", *(status.interface for status in self._model.statuses)]
        at = choices.index(self._interface) if self._interface in choices else 0
        self._interface = choices[(at + 1) % len(choices)]
        self._show()

    def action_pause(self) -> None:
        """Look no more, or again."""
        self._is_paused = not self._is_paused
        self._changed.set()
        self._show()

    def action_interval(self, step: int) -> None:
        """Look more often, or less."""
        nearest = min(INTERVALS, key=lambda each: abs(each - self._interval_seconds))
        at = INTERVALS.index(nearest) + step
        self._interval_seconds = INTERVALS[max(0, min(at, len(INTERVALS) - 1))]
        self.notify(f"looks every {self._interval_seconds:g} s", timeout=1)
        self._changed.set()

    def action_help(self) -> None:
        """Say what keys and columns mean."""
        self.push_screen(HelpScreen())

    def action_filter(self) -> None:
        """Let a text be typed; rows are chosen as it is."""
        box = self.query_one("#filter", Input)
        box.display = True
        box.focus()

    def action_clear(self) -> None:
        """Show all peers again."""
        box = self.query_one("#filter", Input)
        box.value = ""
        self._end_filter()

    @on(Input.Changed, "#filter")
    def _filter_typed(self, event: Input.Changed) -> None:
        self._text = event.value
        self._show()

    @on(Input.Submitted, "#filter")
    def _end_filter(self) -> None:
        self.query_one("#filter", Input).display = False
        self.query_one(PeerTable).focus()
        self._show()
