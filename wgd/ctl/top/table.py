"""The table of peers: only the lines that are seen are made, however many peers there are."""

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from wgd.ctl.top.cells import Layout
from wgd.ctl.top.model import PeerKey, Row

_PLAIN: Final = Style()
_CURSOR: Final = Style(reverse=True)
_TROUBLE: Final = Style(color="red")
_ASLEEP: Final = Style(dim=True)


class PeerTable(ScrollView, can_focus=True):
    """Shows rows, one of which is selected; the selection follows its peer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "first", show=False),
        Binding("end,G", "last", show=False),
    ]

    class Selected(Message):
        """Another peer was selected."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: Sequence[Row] = ()
        self._layout = Layout.of(80)
        self._index = 0
        self._key: PeerKey | None = None

    @property
    def selected(self) -> Row | None:
        """Return the row of the selected peer."""
        return self._rows[self._index] if self._index < len(self._rows) else None

    def show(self, rows: Sequence[Row], layout: Layout) -> None:
        """Show these rows instead; a selected peer that is gone gives way to what is in its place.

        Until somebody has chosen a peer, it is the first row that is selected.
        """
        self._rows = rows
        self._layout = layout
        if self._key is not None:
            found = (n for n, row in enumerate(rows) if row.key == self._key)
            self._index = next(found, self._index)
        self._index = max(0, min(self._index, len(rows) - 1))
        self.virtual_size = Size(self.size.width, len(rows))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return one line of what is seen."""
        number = y + self.scroll_offset.y
        width = self.size.width
        if number >= len(self._rows):
            return Strip.blank(width)
        row = self._rows[number]
        text = self._layout.line(row)
        if number == self._index:
            return Strip([Segment(f"{text:{width}}", _CURSOR)]).crop_extend(0, width, _CURSOR)
        style = _TROUBLE if row.note() else _PLAIN if row.peer.has_session else _ASLEEP
        return Strip([Segment(text, style)]).crop_extend(0, width, _PLAIN)

    # -- keys and mouse ----------------------------------------------------------------------------

    def action_move(self, lines: int) -> None:
        """Select the peer that many lines further down."""
        self._select(self._index + lines)

    def action_page(self, pages: int) -> None:
        """Select the peer that many pages further down."""
        self._select(self._index + pages * max(1, self.size.height - 1))

    def action_first(self) -> None:
        """Select the first peer."""
        self._select(0)

    def action_last(self) -> None:
        """Select the last peer."""
        self._select(len(self._rows) - 1)

    def on_click(self, event: events.Click) -> None:
        """Select the peer that was clicked on."""
        self._select(event.y + self.scroll_offset.y)

    def _select(self, index: int) -> None:
        if not self._rows:
            return
        self._index = max(0, min(index, len(self._rows) - 1))
        self._key = self._rows[self._index].key
        height = self.size.height
        if self._index < self.scroll_offset.y:
            self.scroll_to(y=self._index, animate=False)
        elif self._index >= self.scroll_offset.y + height:
            self.scroll_to(y=self._index - height + 1, animate=False)
        self.refresh()
        self.post_message(self.Selected())
