"""Entries about what is configured: peers, their keys and prefixes."""

from typing import Final

from wgd.ctl.doctor.catalog.entry import NOTE, PROBLEM, Entry

ENTRIES: Final = (
    Entry(
        "no-allowed-ips",
        PROBLEM,
        "Peer {peer} has no allowed IPs: nothing is sent to it, and what it sends is dropped.",
        "Allowed IPs are both: which addresses are behind the peer, and which it may send from. "
        "A prefix belongs to one peer only; giving it to another peer takes it away here.",
        ("Give it its prefixes: wgdctl set {interface} peer {key} allowed-ips PREFIX",),
    ),
    Entry(
        "prefix-twice",
        PROBLEM,
        "{file} gives {prefix} to more than one peer; only {peer}, the last one, has it.",
        "A prefix belongs to one peer. WireGuard silently moves it to the peer that was given it "
        "last, and the others do without.",
        ("Give each peer prefixes of its own in {file}; for one machine that is a /32 or a /128.",),
    ),
    Entry(
        "prefix-nested",
        NOTE,
        "{inner} of peer {peer} lies within {outer} of peer {other}; packets for it go to the "
        "former.",
        "The longest prefix wins. That is often meant so, but not if both peers are to have it.",
        ("Narrow {outer} if peer {other} is to have {inner}.",),
    ),
    Entry(
        "own-key-as-peer",
        PROBLEM,
        "{file} has a peer with the interface's own public key {key}; it was skipped.",
        "Each end has a private key of its own, and as a peer the public key of the other end. A "
        "key pair was copied to both ends, or the wrong one of two public keys was put down.",
        (
            "Put the other end's public key there: on that machine, wgdctl show INTERFACE "
            "public-key",
            "If both ends show the same one, make a new private key on one: wgdctl genkey",
        ),
    ),
    Entry(
        "shared-key",
        PROBLEM,
        "Peer {peer} jumps between {endpoints}: two machines seem to use one private key.",
        "While it was watched, the peer's endpoint changed there and back. A machine that roams "
        "does not come back at once; two machines with one private key take the session from each "
        "other all the time.",
        (
            "Give each machine a key pair of its own (wgdctl genkey), and each a peer here.",
            "If it is one machine with two uplinks that take turns, nothing need be done.",
        ),
    ),
    Entry(
        "weak-key",
        PROBLEM,
        "The public key of peer {peer} is of low order: no session can be made with it.",
        "A few values that look like public keys are none, such as all zeros.",
        ("Ask for the right key: on that machine, wgdctl show INTERFACE public-key",),
    ),
)
