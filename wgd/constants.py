"""Every limit of the protocol and of wgd, under the names of the WireGuard paper (section 6.1).

Times carry their unit. Limits that are wgd's own say what they bound.
"""

from typing import Final

SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000

# -- the paper, section 6.1 ----------------------------------------------------------------------
REKEY_AFTER_MESSAGES: Final = 2**60
REPLAY_WINDOW: Final = 8128
REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1
REKEY_AFTER_TIME_NS: Final = 120 * SECOND_NS
REJECT_AFTER_TIME_NS: Final = 180 * SECOND_NS
REKEY_ATTEMPT_TIME_NS: Final = 90 * SECOND_NS
REKEY_TIMEOUT_NS: Final = 5 * SECOND_NS
KEEPALIVE_TIMEOUT_NS: Final = 10 * SECOND_NS

# -- what every implementation agrees on beyond the paper ----------------------------------------
REKEY_TIMEOUT_JITTER_MAX_NS: Final = 333 * MILLISECOND_NS
ZERO_KEYS_AFTER_TIME_NS: Final = 3 * REJECT_AFTER_TIME_NS
# On receive, the initiator renews this long before the keypair is rejected (paper, section 6.2).
REKEY_ON_RECEIVE_AFTER_TIME_NS: Final = (
    REJECT_AFTER_TIME_NS - KEEPALIVE_TIMEOUT_NS - REKEY_TIMEOUT_NS
)
# A suspend this long ends all sessions, as the kernel ends them before every suspend. Shorter ones
# are those of systems that sleep by themselves between two packets; there the kernel does not.
SUSPEND_ENDS_SESSIONS_AFTER_NS: Final = 10 * SECOND_NS
INITIATION_INTERVAL_MIN_NS: Final = 20 * MILLISECOND_NS
COOKIE_SECRET_LIFETIME_NS: Final = 120 * SECOND_NS
# The initiator stops trusting a cookie a little before the responder forgets the secret.
COOKIE_LATENCY_MARGIN_NS: Final = 5 * SECOND_NS
# Timestamps are rounded down to this power of two of nanoseconds, at most 20 ms (whitening).
TIMESTAMP_WHITENING_NS: Final = 2**24
MAX_STAGED_PACKETS: Final = 128
PADDING_MULTIPLE: Final = 16
MAX_PEERS: Final = 65_536

# -- load (paper, section 5.3) -------------------------------------------------------------------
MAX_QUEUED_HANDSHAKES: Final = 1024
UNDER_LOAD_QUEUE_DEPTH: Final = MAX_QUEUED_HANDSHAKES // 8
UNDER_LOAD_STICKY_NS: Final = 1 * SECOND_NS
# Cookie replies carry no MAC1, so anybody can send them: they get a short queue of their own.
MAX_QUEUED_COOKIE_REPLIES: Final = 64
# A source is an IPv4 address or an IPv6 /64. So many proven handshakes, and so many cookie replies
# before it takes from the spare ones:
HANDSHAKES_PER_SECOND_PER_SOURCE: Final = 20
HANDSHAKE_BURST_PER_SOURCE: Final = 5
MAX_RATE_LIMITED_SOURCES: Final = 65_536
# An initiator sends one message in five seconds, but several may sit behind one address.
UNPROVEN_HANDSHAKES_PER_SECOND_PER_SOURCE: Final = 1
UNPROVEN_HANDSHAKE_BURST_PER_SOURCE: Final = 5
# All that are neither proven nor expected together, a twentieth of a core: most is for those that
# had been quiet, as the sources of a flood have not, unless it forges very many.
QUIET_STRANGER_HANDSHAKES_PER_SECOND: Final = 192
QUIET_STRANGER_HANDSHAKE_BURST: Final = 48
STRANGER_HANDSHAKES_PER_SECOND: Final = 64
STRANGER_HANDSHAKE_BURST: Final = 16
MAX_STRANGERS: Final = 4096
# For one to two of these, who has sent is not quiet; so many are known of each. The native engine
# knows four times as many, but not for certain.
SOURCE_GENERATION_NS: Final = 60 * SECOND_NS
MAX_RECENT_SOURCES: Final = 65_536
QUIET_COOKIE_REPLIES_PER_SECOND: Final = 32_000
QUIET_COOKIE_REPLY_BURST: Final = 3200
COOKIE_REPLIES_PER_SECOND: Final = 8000
COOKIE_REPLY_BURST: Final = 800
# Beyond either rate, to anybody: who floods in a peer's name must not use up what the peer gets.
SPARE_COOKIE_REPLIES_PER_SECOND: Final = 2000
SPARE_COOKIE_REPLY_BURST: Final = 200
MAX_COOKIE_REPLY_SOURCES: Final = 16_384
# The MAC1 of so many messages that were heard are remembered: a copy is not heard.
MAX_HEARD_HANDSHAKES: Final = 1024
# Under load, where peers are is looked up anew so often.
PEER_ENDPOINTS_LIFETIME_NS: Final = 1 * SECOND_NS

# -- manners -------------------------------------------------------------------------------------
# The type of service or traffic class of handshake messages: DSCP AF41, as the kernel does.
HANDSHAKE_TRAFFIC_CLASS: Final = 0x88
# ICMP errors to local senders, and so many at once: the kernel's net.ipv4.icmp_msgs_per_sec and
# icmp_msgs_burst.
UNREACHABLES_PER_SECOND: Final = 1000
UNREACHABLES_BURST: Final = 50

# -- sizes ---------------------------------------------------------------------------------------
DEFAULT_MTU: Final = 1420
MAX_MTU: Final = 65_535
MAX_DATAGRAM_SIZE: Final = 65_507
KEY_SIZE: Final = 32
