"""The lines of a wg-quick file: which are for wg-quick, and which are left for `wg setconf`.

wg-quick is a script of bash, which reads bytes in the C locale; so does this. Blanks are trimmed
from a line, `#` begins a comment, keys and sections are told without regard to case.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

KEYS: Final = frozenset(
    (
        *(b"address", b"dns", b"mtu", b"table", b"saveconfig"),
        *(b"preup", b"postup", b"predown", b"postdown"),
    )
)
"""What wg-quick takes for itself in `[Interface]`, in small letters."""

_BLANKS: Final = b" \t\n\v\f\r"


class Line(NamedTuple):
    """One line: `text` without its outer blanks, and what it says if it is for wg-quick.

    `key` is in small letters, or empty for a line that `wg` is to read.
    """

    number: int
    text: bytes
    key: bytes
    value: bytes

    def __repr__(self) -> str:
        return f"Line(number={self.number}, key={self.key!r})"  # its text may be a private key


def read(data: bytes) -> Iterator[Line]:
    """Yield the lines of a file, beginning with number 1."""
    is_interface = False
    lines = data.replace(b"\0", b"").split(b"\n")
    if not lines[-1].strip(b" \t"):
        lines.pop()  # what ends a line begins none
    for number, raw in enumerate(lines, 1):
        text = raw.strip(b" \t")
        statement = text.partition(b"#")[0]
        key, equals, value = statement.partition(b"=")
        key = key.strip(_BLANKS).lower()
        value = (value if equals else statement).strip(_BLANKS)
        if key.startswith(b"["):
            is_interface = key == b"[interface]"
        if is_interface and key in KEYS:
            yield Line(number, text, key, value if equals else b"")
        else:
            yield Line(number, text, b"", b"")


def strip(data: bytes) -> bytes:
    """Return what `wg-quick strip` prints: the lines for `wg`, and an empty one."""
    return b"".join(line.text + b"\n" for line in read(data) if not line.key) + b"\n"


def for_wg(data: bytes) -> bytes:
    """Return the file for `wg` with the others' lines empty, so that line numbers stay true."""
    return b"\n".join(b"" if line.key else line.text for line in read(data))
