"""What became of a device's handshakes, counted as they happen: see `wgd.status.Handshakes`."""

from bisect import bisect_left

from wgd.constants import SECOND_NS
from wgd.status import LATENCY_BOUNDS_SECONDS, Handshakes, Latency


class HandshakeCounts:
    """The counters that all peers of one device share; the names are those of `Handshakes`."""

    def __init__(self) -> None:
        self.initiated = 0
        self.answered = 0
        self.accepted = 0
        self.refused = 0
        self.unanswered = 0
        self.given_up = 0
        self.cookies_received = 0
        self._latency_counts = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
        self._latency_sum_ns = 0

    def answered_after(self, latency_ns: int) -> None:
        """Count an answer this long after the first initiation of the attempt."""
        self.answered += 1
        # A bound belongs to the bucket below it, as Prometheus has it ("le").
        bucket = bisect_left(LATENCY_BOUNDS_SECONDS, latency_ns / SECOND_NS)
        self._latency_counts[bucket] += 1
        self._latency_sum_ns += latency_ns

    def handshakes(self, *, cookies_sent: int) -> Handshakes:
        """Return the counters as they are now; cookies are the data plane's to count."""
        return Handshakes(
            initiated=self.initiated,
            answered=self.answered,
            accepted=self.accepted,
            refused=self.refused,
            unanswered=self.unanswered,
            given_up=self.given_up,
            cookies_sent=cookies_sent,
            cookies_received=self.cookies_received,
        )

    def latency(self) -> Latency:
        """Return the histogram as it is now."""
        return Latency(tuple(self._latency_counts), self._latency_sum_ns / SECOND_NS)
