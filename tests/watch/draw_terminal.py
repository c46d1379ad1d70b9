"""What is on textual's screen as a picture, as a dark terminal would show it."""

from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont
from rich.color import Color
from rich.style import Style
from rich.terminal_theme import MONOKAI
from textual.app import App

FONT_SIZE = 15
MARGIN = 10


def draw_terminal(app: App[None], path: Path) -> None:
    """Write the screen into a PNG file."""
    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    plain, bold = (
        ImageFont.truetype(fonts / name, FONT_SIZE)
        for name in ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf")
    )
    width = round(plain.getlength("M"))
    height = round(FONT_SIZE * 1.25)
    size = app.size
    image = Image.new(
        "RGB",
        (size.width * width + 2 * MARGIN, size.height * height + 2 * MARGIN),
        _colour(None, foreground=False),
    )
    draw = ImageDraw.Draw(image)
    for y, strip in enumerate(app.screen._compositor.render_strips()):
        x = 0
        for text, style, _ in strip:
            front, back = _colours(style or Style())
            left, top = MARGIN + x * width, MARGIN + y * height
            draw.rectangle((left, top, left + len(text) * width - 1, top + height - 1), fill=back)
            for n, letter in enumerate(text):
                font = bold if style and style.bold else plain
                draw.text((left + n * width, top), letter, fill=front, font=font)
            x += len(text)
    image.save(path, optimize=True)


def _colours(style: Style) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    front = _colour(style.color, foreground=True)
    back = _colour(style.bgcolor, foreground=False)
    if style.dim:
        front = (front[0] * 2 // 3, front[1] * 2 // 3, front[2] * 2 // 3)
    return (back, front) if style.reverse else (front, back)


def _colour(colour: Color | None, *, foreground: bool) -> tuple[int, int, int]:
    colour = colour or Color.default()
    red, green, blue = colour.get_truecolor(MONOKAI, foreground=foreground)
    return red, green, blue
