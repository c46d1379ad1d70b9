"""How a value that was not understood is repeated in a message or a log line."""

import re
from typing import Final

_SIZE: Final = 80
# A key is 43 characters of base64 and one `=`, or 64 hexadecimal digits. Half of one is too much.
_MAYBE_KEY: Final = re.compile(r"[A-Za-z0-9+/]{25}")


def shown(value: str | bytes) -> str:
    """Return a value as one printable line, quoted and cut; of one that may hold a key only that
    it may: whoever mixed up two lines or two words must not find a secret in the log.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if _MAYBE_KEY.search(text):
        return "what may be a key"
    return ascii(text[:_SIZE])
