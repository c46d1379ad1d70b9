"""TAI64N timestamps: what makes an initiation fresh (paper, section 5.1).

A label is 12 bytes, big endian: seconds since 1970 TAI plus 2^62, then nanoseconds. Labels compare
as bytes in the order of time.
"""

from typing import Final

from wgd.constants import SECOND_NS, TIMESTAMP_WHITENING_NS

TIMESTAMP_SIZE: Final = 12
# 2^62, and the ten seconds TAI was ahead of UTC in 1970; leap seconds since are left out by all.
_EPOCH_SECONDS: Final = 2**62 + 10


def whiten(wall_ns: int) -> int:
    """Return Unix time with its nanoseconds rounded down, so that a label does not show the exact
    moment it was made at, which would help to guess or to link other secrets.
    """
    nanoseconds = wall_ns % SECOND_NS
    return wall_ns - nanoseconds % TIMESTAMP_WHITENING_NS


def after(wall_ns: int, last_ns: int | None) -> int:
    """Return whitened Unix time: `wall_ns`, or the next later than `last_ns` if it is not later.

    `last_ns` is an earlier result, None for none. A wall clock that is set back must not make our
    initiations look replayed.
    """
    whitened = whiten(wall_ns)
    if last_ns is None or whitened > last_ns:
        return whitened
    return whiten(last_ns + TIMESTAMP_WHITENING_NS)


def label(whitened_ns: int) -> bytes:
    """Return the 12 byte TAI64N label of Unix time in nanoseconds."""
    seconds, nanoseconds = divmod(whitened_ns, SECOND_NS)
    return (_EPOCH_SECONDS + seconds).to_bytes(8, "big") + nanoseconds.to_bytes(4, "big")
