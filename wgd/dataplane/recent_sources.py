"""Who has sent lately, in memory that does not grow with their number."""

from wgd.constants import MAX_RECENT_SOURCES, SOURCE_GENERATION_NS


class RecentSources:
    """The sources of two generations; of each as many as `most`, then the next one begins.

    A source is remembered for one to two times SOURCE_GENERATION_NS after it has sent last, if not
    too many send.
    """

    def __init__(self, now_ns: int, most: int = MAX_RECENT_SOURCES) -> None:
        self._most = most
        self._current: set[bytes] = set()
        self._former: set[bytes] = set()
        self._began_ns = now_ns

    def was_quiet(self, source: bytes, now_ns: int) -> bool:
        """Whether a source that sends now had been quiet."""
        if self.is_outdated(now_ns):
            self._begin(now_ns)
            self._begin(now_ns)
        elif now_ns - self._began_ns >= SOURCE_GENERATION_NS:
            self._begin(self._began_ns + SOURCE_GENERATION_NS)
        elif len(self._current) >= self._most:
            self._begin(now_ns)
        has_sent = source in self._current or source in self._former
        self._current.add(source)
        return not has_sent

    def is_outdated(self, now_ns: int) -> bool:
        """Whether everybody it knows should be forgotten."""
        return now_ns - self._began_ns >= 2 * SOURCE_GENERATION_NS

    def _begin(self, now_ns: int) -> None:
        self._former = self._current
        self._current = set()
        self._began_ns = now_ns
