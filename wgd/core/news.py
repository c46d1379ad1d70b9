"""What every peer of a device has to be told, a slice at a time (sans-IO).

With 65,536 peers, telling all of them that the link is up takes half a second, which no handshake
shall wait for. So what has happened is only noted, for each peer; the device tells some at every
deadline, and whoever has other business with a peer before its turn tells it first. Then it makes
no difference that it was not told at once.
"""

from collections.abc import Iterable
from typing import Final

from wgd.dataplane.interface import PeerId

LINK: Final = 1 << 0
"""The link has gone up or down."""
IDENTITY: Final = 1 << 1
"""Our own static key is another one."""
PORT: Final = 1 << 2
"""Our sockets have another port."""
NETWORK: Final = 1 << 3
"""The network under the tunnel has changed."""
MOVED: Final = 1 << 4
"""The way to this peer has changed."""
AWAKE: Final = 1 << 5
"""The system was suspended, or its clock was set."""
GREETING: Final = 1 << 6
"""We are reached another way: whoever was heard from lately is told so."""

SUSPENDED: Final = 1 << 7
"""That was so long that all sessions are over."""
CLONED: Final = 1 << 8
"""Somebody else may have our keys."""


class News:
    """The news that peers have not been told yet: a sum of the constants above for each."""

    def __init__(self) -> None:
        self._untold: dict[PeerId, int] = {}

    def __bool__(self) -> bool:
        return bool(self._untold)

    def note(self, peers: Iterable[PeerId], news: int) -> None:
        """These peers have to be told; what comes twice before they are is told once."""
        untold = self._untold
        if not untold:
            self._untold = dict.fromkeys(peers, news)
            return
        for peer in peers:
            untold[peer] = untold.get(peer, 0) | news

    def take(self, peer: PeerId) -> int:
        """Return what to tell this peer now, 0 for nothing."""
        return self._untold.pop(peer, 0) if self._untold else 0

    def next_peers(self, limit: int) -> list[PeerId]:
        """Return at most `limit` peers that have not been told something yet."""
        # Nothing may be added or taken while one looks, so these are collected first.
        return [peer for peer, _ in zip(self._untold, range(limit), strict=False)]
