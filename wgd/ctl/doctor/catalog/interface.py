"""Entries about the interface itself."""

from typing import Final

from wgd.ctl.doctor.catalog.entry import NOTE, PROBLEM, WARNING, Entry

ENTRIES: Final = (
    Entry(
        "no-daemon",
        PROBLEM,
        "The interface {interface} exists, but no userspace daemon answers for it ({reason}).",
        "Somebody made the interface, but its daemon has ended, or it is the kernel's own "
        "WireGuard or another kind of interface, which has no configuration socket.",
        (
            "If it is wgd's: delete what is left (ip link delete {interface}) and start it again.",
            "If it is the kernel's WireGuard (ip -d link show {interface}): use wg.",
        ),
    ),
    Entry(
        "interface-down",
        PROBLEM,
        "The interface {interface} is down, so its daemon neither sends nor listens.",
        "A WireGuard interface is made down, and while it is down it has no UDP socket.",
        ("Set it up: ip link set {interface} up",),
    ),
    Entry(
        "not-listening",
        PROBLEM,
        "The interface {interface} is up, but its daemon does not listen on UDP port {port}.",
        "The UDP sockets are opened when the interface comes up. If that fails, mostly because "
        "another program has the port, the tunnel is dead until it succeeds.",
        (
            "See who has the port: ss -ulpn 'sport = :{port}'",
            "Stop that program, or take another port: wgdctl set {interface} listen-port 0",
        ),
    ),
    Entry(
        "no-private-key",
        PROBLEM,
        "The interface {interface} has no private key: it can make no session with anybody.",
        "Until the private key is set, every handshake is impossible.",
        (
            "Give it one: wgdctl genkey > FILE, then wgdctl set {interface} private-key FILE",
            "Tell the other ends its public key: wgdctl show {interface} public-key",
        ),
    ),
    Entry(
        "no-address",
        WARNING,
        "The interface {interface} has no address, so programs have nothing to send from.",
        "The addresses inside the tunnel belong to the system, not to the daemon. Each end needs "
        "one that the other end lists among its allowed IPs.",
        ("Add it: ip address add ADDRESS/LENGTH dev {interface}",),
    ),
    Entry(
        "no-peers",
        PROBLEM,
        "The interface {interface} has no peers.",
        "Nothing can be sent or received without a peer. If the configuration has one, it may have "
        "been skipped: a peer with the interface's own key is.",
        (
            "Add one: wgdctl set {interface} peer PUBLIC-KEY allowed-ips PREFIX endpoint HOST:PORT",
            "If its file has one: that public key must be the other end's, not our own, {own_key}",
        ),
    ),
    Entry(
        "elsewhere",
        NOTE,
        "{interface} is not in this network namespace, so its addresses, MTU and routes, and the "
        "firewall there, were not looked at.",
        "The daemon answers, but the interface was made in, or moved to, another namespace.",
        (
            "Look from inside: ip netns exec NAME wgdctl doctor {interface}",
            "In a container: run wgdctl doctor in it.",
        ),
    ),
)
