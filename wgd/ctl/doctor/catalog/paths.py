"""Entries about the way to a peer: names, routes, firewalls, hosts and ports."""

from typing import Final

from wgd.ctl.doctor.catalog.entry import NOTE, PROBLEM, WARNING, Entry

ENTRIES: Final = (
    Entry(
        "never-called",
        NOTE,
        "Peer {peer} has no endpoint and has not called yet: we can only wait for it.",
        "A peer without an endpoint, such as a telephone, has to begin. This is a fault only if it "
        "should be connected now.",
        (
            "Start the tunnel over there, and see what wgdctl doctor says there.",
            "If it has a fixed address: wgdctl set {interface} peer {key} endpoint HOST:PORT",
        ),
    ),
    Entry(
        "no-endpoint",
        PROBLEM,
        "There is something to send to peer {peer}, but it has no endpoint and has not called.",
        "Packets for the peer are refused: nobody knows where it is.",
        (
            "Give it one: wgdctl set {interface} peer {key} endpoint HOST:PORT",
            "Or let the other end call: it needs our endpoint, and behind NAT a persistent "
            "keepalive.",
        ),
    ),
    Entry(
        "name-not-found",
        PROBLEM,
        "The host name of peer {peer}, {name}, is not found: {reason}.",
        "The endpoint was given by name, and the resolver does not know the name (any more).",
        (
            "Try it: getent ahosts {host}",
            "See that the resolver is reached without the tunnel: /etc/resolv.conf",
        ),
    ),
    Entry(
        "name-moved",
        WARNING,
        "The host name of peer {peer}, {name}, is now at {addresses}, but the peer is sought at "
        "{address}.",
        "The name's address has changed since it was looked up. wgd looks again by itself when the "
        "peer does not answer, if it knows the name; other daemons never do.",
        (
            "Set it anew: wgdctl set {interface} peer {key} endpoint {name}",
            "If the peer answers where it is, nothing need be done.",
        ),
    ),
    Entry(
        "no-route-to-endpoint",
        PROBLEM,
        "There is no route to the endpoint of peer {peer}: {reason}.",
        "The system does not know where to send datagrams for that address: the network is down, "
        "the default route is missing, or there is no IPv6 here.",
        (
            "See: ip route get {host}",
            "Bring the network up, or use an endpoint of the other address family.",
        ),
    ),
    Entry(
        "route-loop",
        PROBLEM,
        "The endpoint of peer {peer} is routed into {interface} itself: the tunnel would carry "
        "its own datagrams.",
        "The allowed IPs, or a route made from them, hold the endpoint's own address. Datagrams to "
        "it must leave by the ordinary way.",
        (
            "Let wgdctl up do it: it marks the tunnel's own datagrams and routes them by the main "
            "table.",
            "Or add a route for the endpoint alone: ip route add {host} via GATEWAY",
        ),
    ),
    Entry(
        "own-firewall",
        PROBLEM,
        "This machine's own firewall does not let us send to peer {peer}: {rule}.",
        "Sending fails with EPERM, which is what a rule in the output path of nftables or iptables "
        "does.",
        (
            "Find the rule: nft list ruleset (or iptables-save), hook output",
            "Allow UDP to {endpoint} before it.",
        ),
    ),
    Entry(
        "firewall-drops",
        PROBLEM,
        "This machine's firewall drops what {direction}: {rule}.",
        "By its rules, as far as nftables shows them, the tunnel's datagrams are dropped.",
        ("Allow UDP port {port} before that (nft list ruleset shows the rules).",),
    ),
    Entry(
        "firewall-may-drop",
        WARNING,
        "This machine's firewall may drop what {direction}: {rule}.",
        "There is a rule that drops, but whether it is reached depends on something that was not "
        "looked at, such as the state of a connection: answers may pass where calls do not.",
        ("If a peer cannot call us, allow UDP port {port} before that (nft list ruleset).",),
    ),
    Entry(
        "send-failed",
        PROBLEM,
        "The system cannot send to the endpoint of peer {peer}: {reason}.",
        "Each datagram to the peer is refused with this error.",
        ("See: ip route get {host}", "See the state of the interface that the route names."),
    ),
    Entry(
        "host-unreachable",
        PROBLEM,
        "The host of peer {peer} is not reachable: {reason}.",
        "A router on the way, or this machine itself, reports that the address cannot be reached: "
        "it is switched off, or not in that network.",
        (
            "See whether the address is right and its machine is on: ping {host}",
            "See the routes on the way: tracepath {host}",
        ),
    ),
    Entry(
        "port-closed",
        PROBLEM,
        "The host of peer {peer} is there, but nobody listens on its UDP port {port}.",
        "The host answered that the port is closed: its WireGuard is not running or not up, or "
        "listens on another port.",
        (
            "See the port on the other end: wgdctl show INTERFACE listen-port",
            "Start it there; wgdctl doctor over there says what is wrong with it.",
            "If a NAT router is between: forward UDP port {port} to that machine.",
        ),
    ),
    Entry(
        "endpoint-silent",
        PROBLEM,
        "Peer {peer} does not answer: {called}, and nothing comes back. {ping}",
        "WireGuard never answers what it does not accept, so silence has several causes, from "
        "nearest to farthest: the port is wrong or filtered, the other end does not know our key, "
        "we have not its right key, or it takes our messages for old ones. The other end knows "
        "which.",
        (
            "Run wgdctl doctor on the other end: it names a wrong or unknown key and old messages.",
            "It must have our public key as a peer: {own_key}",
            "Its public key must be {key} (wgdctl show INTERFACE public-key)",
            "A firewall there or on the way must let UDP port {port} in.",
        ),
    ),
)
