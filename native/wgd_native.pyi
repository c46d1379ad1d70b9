"""The native data plane of wgd, which wgd.dataplane.native wraps, and native primitives of
handshakes, which wgd.noise.primitives uses. Not an API for others.

Shapes: addresses are text, prefixes packed bytes, times boot nanoseconds, and an endpoint is
`(host, port, scope_id, source)` with `source` either None or `(address, interface_index)`, as the
named tuples in wgd.addresses. A peer is a number that the caller chose. Unknown peers raise
KeyError. An engine either runs threads on descriptors (`start`) or is stepped on objects.
"""

from collections.abc import Sequence
from typing import Any, final

_Source = tuple[str, int]
_Endpoint = tuple[str, int, int, _Source | None]

__version__: str

INTERFACE_VERSION: int
"""Grows with every change of what is described here."""

# -- the primitives of handshakes: wgd.noise.primitives says what each does ------------------------

HAS_PRIMITIVES: bool
"""Whether they are here: they are not on a processor that the library does not know."""

@final
class PrivateKey:
    """An X25519 private key of 32 bytes; ValueError for another length."""

    def __init__(self, private_key: bytes) -> None: ...
    @property
    def public_key(self) -> bytes: ...
    def dh(self, public_key: bytes) -> bytes:
        """Return the shared secret; ValueError for a low-order public key or another length."""

    def to_bytes(self) -> bytes: ...

def blake2s(data: bytes) -> bytes: ...
def mac(key: bytes, data: bytes) -> bytes: ...
def hmac_blake2s(key: bytes, data: bytes) -> bytes: ...
def kdf1(chaining_key: bytes, secret: bytes) -> bytes: ...
def kdf2(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes]: ...
def kdf3(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes, bytes]: ...
def seal(key: bytes, counter: int, plaintext: bytes, associated: bytes) -> bytes: ...
def unseal(key: bytes, counter: int, ciphertext: bytes, associated: bytes) -> bytes:
    """ValueError if it is not authentic."""

# -- the data plane --------------------------------------------------------------------------------

@final
class Engine:
    """One device's data plane."""

    def __init__(self) -> None: ...

    # -- the outside world -----------------------------------------------------------------------

    def start(
        self, tun_fds: Sequence[int], *, virtio_header_size: int, has_packet_information: bool
    ) -> None:
        """Move packets between these queues of one TUN device and the sockets, in two threads a
        queue. The descriptors are duplicated. Raises OSError; once only.
        """

    def stop(self) -> None:
        """End the threads, forget everything and close what was duplicated; once or more.

        Only the event descriptor stays open as long as the object.
        """

    def attach_sockets(self, sockets: Sequence[tuple[int, bool, int]]) -> None:
        """Use these UDP sockets, `(descriptor, is_ipv6, max_segments)`, several of one family to
        share among the threads. They are duplicated; of those before none is open any more when
        this returns. Raises OSError.
        """

    def attach_objects(self, tun: Any, sockets: Sequence[Any]) -> None:
        """Use a `Tun` and `DatagramSocket`s (wgd.dataplane.interface) instead of descriptors; they
        are used in `step_tun`, `step_socket` and the calls that send.

        A `tun` with a true attribute `has_virtio_header` gives and takes packets with a virtio-net
        header of 10 bytes before them.
        """

    def step_tun(self, now_ns: int) -> bool:
        """Handle what the TUN object holds, up to a limit; False if reading failed at once."""

    def step_socket(self, index: int, now_ns: int) -> bool:
        """The same for a socket object, by its place in the list."""

    def set_mtu(self, mtu: int) -> None: ...

    # -- peers -----------------------------------------------------------------------------------

    def add_peer(self, peer: int) -> None: ...
    def remove_peer(self, peer: int) -> tuple[int, ...]: ...
    def set_endpoint(self, peer: int, endpoint: _Endpoint) -> None: ...
    def endpoint(self, peer: int) -> _Endpoint | None: ...
    def clear_source(self, peer: int) -> None: ...
    def add_allowed_ip(self, peer: int, address: bytes, length: int) -> None: ...
    def remove_allowed_ip(self, peer: int, address: bytes, length: int) -> None: ...

    # -- sessions --------------------------------------------------------------------------------

    def install_keypair(
        self,
        peer: int,
        local_index: int,
        remote_index: int,
        send_key: bytes,
        receive_key: bytes,
        is_initiator: bool,
        created_ns: int,
    ) -> tuple[int, ...]: ...
    def expire_keypairs(self, peer: int) -> None: ...
    def drop_keypairs(self, peer: int) -> tuple[int, ...]: ...
    def send_keepalive(self, peer: int, now_ns: int) -> None: ...
    def send_staged(self, peer: int, now_ns: int) -> None: ...
    def drop_staged(self, peer: int) -> None: ...
    def refuse_staged(self, peer: int, now_ns: int) -> None: ...
    def set_send_counter(self, peer: int, counter: int) -> None:
        """For tests: the next packet under the current keypair has this counter."""

    # -- stamps and counters ---------------------------------------------------------------------

    def stamps(self, peer: int) -> tuple[int, int, int, int]: ...
    def counters(self, peer: int) -> tuple[int, int, int, int]: ...
    def faults(self, peer: int) -> list[tuple[str, int, int, int]]:
        """Return `(reason, count, last_ns, errno)`, a reason being the value of a FailureReason."""

    def has_session(self, peer: int, now_ns: int) -> bool: ...
    def staged_packets(self, peer: int) -> int: ...
    def disarm(self, peer: int) -> None: ...
    def clear_data_sent_unanswered(self, peer: int) -> None: ...
    def clear_stamps(self, peer: int) -> None: ...

    # -- handshakes ------------------------------------------------------------------------------

    def set_handshake_keys(self, mac1: bytes | None, reply: bytes | None) -> None: ...
    def take_handshakes(self, limit: int) -> list[tuple[bytes, _Endpoint]]: ...
    def load(self, now_ns: int) -> tuple[bool, int]:
        """Return whether handshake messages need a cookie now, and how many replies were made."""

    def send_to_peer(self, peer: int, datagram: bytes, now_ns: int) -> bool: ...
    def note_received(self, peer: int, length: int, source: _Endpoint, now_ns: int) -> None: ...

    # -- events ----------------------------------------------------------------------------------

    def event_fd(self) -> int: ...
    def drain_events(self) -> list[tuple[Any, ...]]:
        """Return the waiting events, oldest first, each one of

        ("needs_handshake", peer)
        ("became_active", peer)
        ("keypair_confirmed", peer, local_index, freed_indices)
        ("tun_closed", reason)
        ("offload_off", name, reason)
        """

    # -- the engine as a whole -------------------------------------------------------------------

    def drops(self) -> dict[str, int]:
        """What was dropped since the start, by the names of `Drops`."""

    def queue_depths(self) -> tuple[int, int]: ...
    def offloads(self) -> list[str]:
        """Return the offloads in use, sorted; "tun_tso" and "tun_uso" unless they have failed: what
        the TUN was made with is not known here.
        """
