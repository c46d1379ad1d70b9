"""The session keys of one handshake: what the control plane derives and the data plane uses."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Keypair:
    """A transport keypair (paper, section 5.4.5); keys are 32 bytes and never in the repr.

    `local_index` is the receiver index in what we get, `remote_index` in what we send.
    The initiator may send at once; the responder only after a first packet under `receive_key`.
    """

    local_index: int
    remote_index: int
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    is_initiator: bool
    created_ns: int
