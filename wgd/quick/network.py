"""An interface that exists and gets what its file says: configuration, addresses, MTU, DNS, routes.

The order, and what is done when, are wg-quick's.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import DeviceChange, PeerState
from wgd.quick import dns, firewall
from wgd.quick.config import QuickConfig
from wgd.quick.errors import QuickError
from wgd.quick.firewall import Firewall
from wgd.quick.rtnetlink import MAIN_TABLE, IpNetwork, Rtnetlink, Rule, covers
from wgd.quick.steps import Addresses, LinkUp, Routes, Rules, Sysctl
from wgd.quick.system import System
from wgd.quick.transaction import Transaction

OVERHEAD_SIZE: Final = 80
"""Bytes that a packet grows by in the tunnel: IPv6 and UDP headers, and WireGuard's own."""

DEFAULT_PATH_MTU: Final = 1500
FIRST_TABLE: Final = 51_820
"""The first table and firewall mark to try for a default route."""

_SRC_VALID_MARK: Final = "net/ipv4/conf/all/src_valid_mark"


class State(Protocol):
    """What a device says about itself, of which this is needed here."""

    @property
    def fwmark(self) -> int:
        """Its firewall mark, 0 for none."""

    @property
    def peers(self) -> Sequence[PeerState]:
        """Its peers."""


class Device(Protocol):
    """A device that can be configured: over its socket, or in the daemon itself."""

    def get(self) -> State:
        """Return what it is now. Raises WgdError."""

    def set(self, change: DeviceChange) -> None:
        """Apply a change whole, or not at all. Raises WgdError."""


def check(config: QuickConfig, change: DeviceChange, system: System) -> None:
    """Raise QuickError if a program is missing that will be needed."""
    if config.dns_servers:
        dns.check_tool(config, system)
    prefixes = [each.prefix for peer in change.peers for each in peer.allowed_ips]
    if config.table is None and any(prefix.length == 0 for prefix in prefixes):
        firewall.check_tool(system)
    hooks = config.hooks
    if hooks.pre_up + hooks.post_up + hooks.pre_down + hooks.post_down and not system.has("bash"):
        raise QuickError(f"{config.path} has hooks for bash, which is not here: install bash")


def set_up(
    config: QuickConfig, change: DeviceChange | None, device: Device, transaction: Transaction
) -> None:
    """Do all the steps for an interface that exists; a change of None leaves its peers as they are.

    Raises WgdError and OSError; what was done until then is in the transaction's journal.
    """
    system = transaction.system
    if change is not None:
        transaction.act("configuration", lambda: device.set(change))
    if config.addresses:
        addresses = tuple(map(str, config.addresses))
        transaction.do(Addresses(config.interface, addresses))
    link = system.link(config.interface)
    if not (system.adopts and link.is_up):
        endpoints = [peer.endpoint for peer in device.get().peers]
        mtu = config.mtu or path_mtu(endpoints, system.network) - OVERHEAD_SIZE
        transaction.do(LinkUp(config.interface, mtu, link.mtu, link.is_up))
    if config.dns_servers and not transaction.has(dns.Dns):
        tool = dns.check_tool(config, system)
        transaction.do(dns.Dns(config.interface, tool, config.dns_servers, config.dns_search))
    if config.table != 0:
        _route(config, device, transaction)


def path_mtu(endpoints: Iterable[Endpoint | None], network: Rtnetlink) -> int:
    """Return the largest MTU on the ways to the endpoints, else that of the default route."""
    mtus = [
        network.path_mtu(ipaddress.ip_address(endpoint.host), endpoint.scope_id)
        for endpoint in set(endpoints)
        if endpoint is not None
    ]
    return max((mtu or 0 for mtu in mtus), default=0) or (
        network.default_route_mtu() or DEFAULT_PATH_MTU
    )


def _route(config: QuickConfig, device: Device, transaction: Transaction) -> None:
    networks = [_network(prefix) for peer in device.get().peers for prefix in peer.allowed_ips]
    # As `sort -nr -k 2 -t /` in wg-quick, which sorts what is equally long by its text.
    networks.sort(key=lambda network: (network.prefixlen, str(network)), reverse=True)
    if config.table is not None:
        if networks:
            texts = tuple(map(str, networks))
            transaction.do(Routes(config.interface, config.table, texts))
        return
    # Those with a prefix length of their own, unless an address has brought the route already.
    system = transaction.system
    index = system.link(config.interface).index
    present = [
        route for version in (4, 6) for route in system.network.routes(version, MAIN_TABLE, index)
    ]
    wanted = tuple(
        str(network)
        for network in networks
        if network.prefixlen and (system.adopts or not covers(present, network))
    )
    if wanted:
        transaction.do(Routes(config.interface, MAIN_TABLE, wanted))
    for network in networks:
        if not network.prefixlen:
            _route_default(config.interface, network, device, transaction)


def _route_default(
    interface: str, network: IpNetwork, device: Device, transaction: Transaction
) -> None:
    """Send everything through the interface but the daemon's own packets, told by their mark.

    The interface's table is for packets without the mark. Before that, the main table is asked for
    all that is more specific than a default route.
    """
    system = transaction.system
    table = device.get().fwmark
    if not table:
        table = _free_table(system.network)
        system.say(f"wg set {interface} fwmark {table}")
        transaction.act("fwmark", lambda: device.set(DeviceChange(fwmark=table)))
    version = network.version
    transaction.do(Routes(interface, table, (str(network),)))
    transaction.do(Rules(_rules(version, table, system)))
    if version == 4 and (before := system.sysctl(_SRC_VALID_MARK)) is not None:
        # Also if it is set: whoever did that is then told, at his end, that we need it, too.
        transaction.do(Sysctl(_SRC_VALID_MARK, "1", before))
    index = system.link(interface).index
    own = tuple(
        str(address.ip) for address in system.network.addresses(index) if address.version == version
    )
    tool = firewall.check_tool(system)
    transaction.do(Firewall(interface, tool, version, table, own))


def _free_table(network: Rtnetlink) -> int:
    table = FIRST_TABLE
    while any(network.routes(version, table) for version in (4, 6)):
        table += 1
    return table


def _rules(
    version: int, table: int, system: System
) -> tuple[tuple[int, int, int, int | None, bool], ...]:
    """Return the rules, with the priorities that they have or that the kernel would give them."""
    priority = system.network.next_rule_priority(version)
    own = Rule(version, priority, table, not_fwmark=table)
    main = Rule(version, max(priority - 1, 0), MAIN_TABLE, only_specific=True)
    if system.adopts:
        for there in system.network.rules(version):
            if there.not_fwmark == table == there.table:
                own = there
                main = Rule(version, max(own.priority - 1, 0), MAIN_TABLE, only_specific=True)
    return tuple(
        (rule.version, rule.priority, rule.table, rule.not_fwmark, rule.only_specific)
        for rule in (own, main)
    )


def _network(prefix: Prefix) -> IpNetwork:
    return ipaddress.ip_network((prefix.address, prefix.length))
