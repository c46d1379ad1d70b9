"""Entries about what goes wrong with a session: directions, inner addresses, routes, sizes."""

from typing import Final

from wgd.ctl.doctor.catalog.entry import NOTE, PROBLEM, WARNING, Entry

ENTRIES: Final = (
    Entry(
        "one-way",
        PROBLEM,
        "Peer {peer} makes sessions with us, but nothing that we send is ever answered: {counts}.",
        "Handshakes pass in both directions, data does not come back. Something on the way lets "
        "small or first datagrams through only, or the other end drops what we send.",
        (
            "See on the other end: wgdctl doctor (allowed IPs, route, MTU, firewall)",
            "Its allowed IPs for us must hold our address: {addresses}",
            "It needs a route back into its tunnel for that address.",
        ),
    ),
    Entry(
        "source-not-allowed",
        WARNING,
        "Peer {peer} sends from addresses that are not among its allowed IPs, {count}{detail}.",
        "What arrives with another inner source is dropped. The peer's address over there, or what "
        "it routes for others without NAT, must be in its allowed IPs here.",
        (
            "Add the address: wgdctl set {interface} peer {key} allowed-ips +PREFIX",
            "Or change the address over there to one in {prefixes}.",
        ),
    ),
    Entry(
        "destination-not-allowed",
        WARNING,
        "Packets were routed into {interface} for addresses that are no peer's, {count}{detail}.",
        "The system has a route into the tunnel that is wider than all allowed IPs together. "
        "Such packets are dropped.",
        ("Add the prefix to the right peer's allowed IPs, or take the route away: ip route",),
    ),
    Entry(
        "missing-route",
        PROBLEM,
        "{prefix}, allowed for peer {peer}, is not routed into {interface}, but {instead}.",
        "Allowed IPs are the tunnel's business, routes are the system's: it needs one for each. "
        "wgdctl up and wg-quick make them, a daemon alone does not.",
        ("Add it: ip route add {prefix} dev {interface}",),
    ),
    Entry(
        "no-default-route",
        NOTE,
        "Everything ({prefix}) is allowed for peer {peer}, but the default route goes {instead}.",
        "Only what a narrower route sends into the tunnel goes through it. That is meant so with "
        "Table = off, or where routes are made by something else.",
        ("If all traffic is to go through the tunnel: wgdctl up makes what that takes.",),
    ),
    Entry(
        "reverse-path-filter",
        PROBLEM,
        "Answers from peer {peer} are dropped by the reverse path filter of {underlay}.",
        "The whole traffic goes into the tunnel, the tunnel's own datagrams are told apart by "
        "their mark, and the strict filter (rp_filter=1) does not look at the mark: an answer from "
        "the endpoint seems to come in by the wrong interface.",
        (
            "Make it loose: sysctl -w net.ipv4.conf.{underlay}.rp_filter=2",
            "Or let wgdctl up do it: it gives answers their mark back, and lets the filter look "
            "at it (net.ipv4.conf.all.src_valid_mark=1).",
        ),
    ),
    Entry(
        "mtu-too-large",
        PROBLEM,
        "The MTU of {interface}, {mtu}, is too large for the way to peer {peer}: {underlay} takes "
        "{path_mtu} bytes, and {needed} are needed.",
        "Each packet becomes 60 bytes longer over IPv4 and 80 over IPv6. What is then larger than "
        "the path takes is cut to pieces or lost: small things work, large ones hang.",
        ("Make it smaller: ip link set {interface} mtu {best}",),
    ),
    Entry(
        "mtu-black-hole",
        PROBLEM,
        "Large packets are lost on the way to peer {peer}: {lost} bytes are not answered, "
        "{largest} are{where}.",
        "Some link on the way takes less than ours and does not say so. Small packets pass, large "
        "ones vanish: pings work, pages and copies hang.",
        (
            "Make it smaller, on both ends: ip link set {interface} mtu {best}",
            "In the configuration file: MTU = {best}",
        ),
    ),
    Entry(
        "receive-buffer-full",
        WARNING,
        "{count} datagrams were lost because the receive buffer of UDP port {port} was full.",
        "The daemon was not given the processor in time, or its buffer is small. wgd asks for "
        "7 MiB and gets it with CAP_NET_ADMIN; without, the system's limit counts.",
        (
            "If the daemon has no CAP_NET_ADMIN, raise the limit: sysctl -w "
            "net.core.rmem_max=7340032 (now {limit}), then start the daemon again.",
        ),
    ),
    Entry(
        "offload-off",
        NOTE,
        "{interface} does without {offloads}, so large transfers cost more processor time.",
        "The kernel, the network card or --no-offload keeps wgd from moving many packets at once. "
        "It works, only slower.",
        (
            "The daemon's log has a line with the reason: event=offload_off",
            "Of network cards, a newer driver may help; of kernels, Linux 6.2 or newer.",
        ),
    ),
    Entry(
        "under-load",
        WARNING,
        "{interface} gets so many handshakes that it asks callers to prove their address.",
        "An eighth of the queue for handshakes was full. Either very many "
        "peers start at once, or somebody floods the port.",
        ("Wait a minute and look again; if it stays, limit new callers in the firewall.",),
    ),
)
