"""The five timers of a peer, as pure functions from facts to a deadline (paper, section 6).

  retransmit handshake   an initiation went unanswered: send another after REKEY_TIMEOUT + jitter,
                         until REKEY_ATTEMPT_TIME has passed
  send keepalive         data came in and nothing has gone out since: answer with an empty packet
                         after KEEPALIVE_TIMEOUT ("passive keepalive")
  new handshake          data went out and nothing has come in since: start a handshake after
                         KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + jitter
  zero key material      no session was made for 3 x REJECT_AFTER_TIME: erase all keys
  persistent keepalive   nothing authenticated went either way for the interval the user set

Every function returns a deadline in boot nanoseconds, or None while its timer is not pending. The
facts are the data plane's stamps and a few moments the control plane remembers, so a packet never
re-arms anything: a deadline is computed when somebody looks.
"""

from wgd.constants import (
    KEEPALIVE_TIMEOUT_NS,
    REKEY_TIMEOUT_NS,
    SECOND_NS,
    ZERO_KEYS_AFTER_TIME_NS,
)
from wgd.dataplane.interface import Stamps


def retransmit_handshake(initiated_ns: int | None, jitter_ns: int) -> int | None:
    """After an initiation was sent at `initiated_ns` that is still unanswered."""
    return None if initiated_ns is None else initiated_ns + REKEY_TIMEOUT_NS + jitter_ns


def send_keepalive(stamps: Stamps) -> int | None:
    """After data was received that nothing sent has acknowledged.

    Counted from the first such packet: counting from the last sent one would answer too early, and
    a keepalive is not data, so two idle peers never keep each other awake.
    """
    received_ns = stamps.first_data_received_unanswered_ns
    return received_ns + KEEPALIVE_TIMEOUT_NS if received_ns else None


def new_handshake(stamps: Stamps, jitter_ns: int) -> int | None:
    """After data was sent that nothing received has acknowledged."""
    sent_ns = stamps.first_data_sent_unanswered_ns
    return sent_ns + KEEPALIVE_TIMEOUT_NS + REKEY_TIMEOUT_NS + jitter_ns if sent_ns else None


def zero_key_material(session_derived_ns: int | None) -> int | None:
    """After the latest session was derived (or an attempt at one was given up)."""
    return None if session_derived_ns is None else session_derived_ns + ZERO_KEYS_AFTER_TIME_NS


def persistent_keepalive(stamps: Stamps, interval_seconds: int, enabled_ns: int) -> int | None:
    """After any authenticated packet in either direction, or after it was switched on."""
    if not interval_seconds:
        return None
    latest_ns = max(stamps.last_sent_ns, stamps.last_received_ns, enabled_ns)
    return latest_ns + interval_seconds * SECOND_NS
