"""Entries about handshakes that are refused, here or there."""

from typing import Final

from wgd.ctl.doctor.catalog.entry import PROBLEM, WARNING, Entry

ENTRIES: Final = (
    Entry(
        "unknown-peer",
        WARNING,
        "Somebody calls whose key is no peer's here, {count}: {who}.",
        "A machine sends handshakes made for our key, with a key that we do not have as a peer. It "
        "gets no answer.",
        (
            "If you know the key: wgdctl set {interface} peer {caller} allowed-ips PREFIX",
            "If not, nothing need be done.",
        ),
    ),
    Entry(
        "wrong-public-key",
        WARNING,
        "Handshakes arrive that are not made for our public key, {count}{detail}.",
        "Somebody calls this port and believes that another key is ours (MAC1 is wrong), or it is "
        "noise from the network.",
        ("On the calling end, our public key must be {own_key}",),
    ),
    Entry(
        "preshared-keys-differ",
        PROBLEM,
        "Peer {peer} answers, but its response cannot be opened, {count}: the preshared keys "
        "differ ({ours}).",
        "Everything up to the preshared key was right: the public keys are, the network is. One "
        "end has another preshared key, or only one end has one.",
        (
            "Set the same on both ends: wgdctl set {interface} peer {key} preshared-key FILE",
            "Or none on both: preshared-key /dev/null",
        ),
    ),
    Entry(
        "answer-not-taken",
        WARNING,
        "Peer {peer} calls and we answer, but it makes no session of it.",
        "Its handshakes are right and arrive. Either our answers do not get back to it (a "
        "firewall, or a NAT that gave it another port), or it cannot open them: the preshared keys "
        "differ.",
        (
            "Compare the preshared keys: wgdctl doctor on the other end knows whether it is them.",
            "If it hears nothing: see the firewall for UDP from port {port} here to {endpoint}.",
        ),
    ),
    Entry(
        "replayed-timestamp",
        PROBLEM,
        "Peer {peer} calls with timestamps that are older than before, {count}: its clock went "
        "back.",
        "Each handshake carries the time, which must grow. The peer's clock was set back (a "
        "machine without a battery for its clock, before it has asked for the time), or two "
        "machines use the same key.",
        (
            "Set the clock over there (timedatectl), and see that it is right after a start.",
            "To begin anew at once: wgdctl set {interface} peer {key} remove, then add it again.",
        ),
    ),
    Entry(
        "clock-wrong",
        PROBLEM,
        "The clock of this machine is wrong: it says {now}, but {reason}.",
        "Handshakes carry the time. With a clock that is behind, the other end takes ours for "
        "copies of earlier ones and does not answer.",
        ("Set it: timedatectl set-ntp true (or date -s)",),
    ),
    Entry(
        "forged",
        WARNING,
        "Messages with peer {peer}'s name on them could not be opened, {count}: {what}.",
        "Somebody forges, or a packet was damaged on the way, or an end has restarted. It is "
        "dropped, and harmless while the tunnel works.",
        ("If the tunnel does not work, see the other findings first.",),
    ),
)
