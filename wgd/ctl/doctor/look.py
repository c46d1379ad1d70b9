"""Looks at the system around a device: its interface, routes, settings, firewall. Linux only."""

from dataclasses import replace
from typing import Final

from wgd.ctl.doctor import firewall, system
from wgd.ctl.doctor.facts import Facts, FirewallRule, Route, Unseen
from wgd.ctl.doctor.rules.common import split_endpoint
from wgd.status import DeviceStatus

MAX_ASKED: Final = 1024
"""Routes of allowed IPs, and peers whose way is looked at; a kernel's answer takes some 0.1 ms."""


def look(facts: Facts, unseen: list[Unseen]) -> Facts:
    """Return the facts with what the system says; what cannot be seen is added to `unseen`."""
    device = facts.device
    try:
        with system.Routes() as routes:
            link = routes.links.get(facts.interface)
            facts = replace(facts, link=link)
            if device is None:
                return facts
            facts = replace(facts, link_is_elsewhere=link is None)
            is_here = system.is_in_our_namespace(device.pid) if device.pid else None
            if is_here is False or (is_here is None and link is None):
                why = "its daemon is in another network namespace, or nobody can tell"
                unseen.append(Unseen("the way to the peers", why))
                return replace(facts, daemon_is_elsewhere=True)
            facts = replace(
                facts,
                prefix_routes=_prefix_routes(routes, device, unseen) if link is not None else {},
                paths={
                    peer.public_key: routes.path(peer.endpoint, device.fwmark)
                    for peer in device.peers[:MAX_ASKED]
                    if peer.endpoint
                },
            )
    except OSError as error:
        unseen.append(Unseen("interfaces and routes", str(error)))
        return facts
    used = {path.marked.interface for path in facts.paths.values() if path.marked.interface}
    return replace(
        facts,
        system=system.settings(used, device.listen_port),
        firewall=_firewall(facts, device, unseen),
    )


def _prefix_routes(
    routes: system.Routes, device: DeviceStatus, unseen: list[Unseen]
) -> dict[str, Route]:
    prefixes = [prefix for peer in device.peers for prefix in peer.allowed_ips]
    if len(prefixes) > MAX_ASKED:
        what = f"the routes of {len(prefixes) - MAX_ASKED} allowed IPs"
        unseen.append(Unseen(what, f"{MAX_ASKED} are looked at"))
    return {prefix: routes.prefix_route(prefix) for prefix in prefixes[:MAX_ASKED]}


def _firewall(facts: Facts, device: DeviceStatus, unseen: list[Unseen]) -> tuple[FirewallRule, ...]:
    try:
        rules = firewall.read_rules()
    except (OSError, ValueError) as error:
        unseen.append(Unseen("the firewall's rules", str(error)))
        return ()
    # By the datagram, for many peers may have the same endpoint.
    owners: dict[firewall.Datagram, list[str]] = {}
    families: set[bool] = set()
    for peer in device.peers[:MAX_ASKED]:
        path = facts.paths.get(peer.public_key)
        if path is None:
            continue
        host, port = split_endpoint(peer.endpoint)
        datagram = firewall.Datagram(
            "output",
            is_ipv6=":" in host,
            remote_address=host,
            local_port=device.listen_port,
            remote_port=int(port),
            interface=path.marked.interface,
            mark=device.fwmark,
        )
        families.add(":" in host)
        owners.setdefault(datagram, []).append(peer.public_key)
    found = [
        rule
        for is_ipv6 in sorted(families) or (None,)
        for rule in rules.dropping(
            firewall.Datagram("input", is_ipv6=is_ipv6, local_port=device.listen_port)
        )
    ]
    for datagram, public_keys in owners.items():
        for rule in rules.dropping(datagram):
            found += [replace(rule, public_key=public_key) for public_key in public_keys]
    return tuple(dict.fromkeys(found))
