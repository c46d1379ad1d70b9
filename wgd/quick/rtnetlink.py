"""Links, addresses, routes and rules over route netlink: what `ip` does, blocking, for one caller.

Everything here is in the network namespace that the connection was opened in.
"""

import errno
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from wgd.net import netlink
from wgd.quick.config import IpInterface
from wgd.quick.netlink_connection import NLM_F_CREATE, NLM_F_EXCL, Connection

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAIN_TABLE: Final = 254

# linux/rtnetlink.h, if.h, fib_rules.h
_RTM_DELLINK: Final = 17
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_RTPROT_BOOT: Final = 3
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_HOST = 0, 253, 254
_RT_SCOPE_NOWHERE: Final = 255
_RTN_UNICAST: Final = 1
_RTM_F_CLONED: Final = 0x200
_IFF_UP: Final = 1
_FR_ACT_TO_TBL: Final = 1
_FIB_RULE_INVERT: Final = 2
_NO_SUPPRESSION: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Link:
    """One interface; `kind` is what made it, such as "tun", or empty."""

    index: int
    mtu: int
    is_up: bool
    kind: str


class Route(NamedTuple):
    """A route through an interface, in a table."""

    network: IpNetwork
    table: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of IP version `version` that looks into `table`.

    With a `not_fwmark` it is for packets that do not have that mark; with `only_specific` it takes
    no default route from the table (suppress_prefixlength 0).
    """

    version: int
    priority: int
    table: int
    not_fwmark: int | None = None
    only_specific: bool = False


class Rtnetlink(Connection):
    """A connection; a context manager. Its methods raise OSError for what the kernel refuses, and
    for an answer that is none (EBADMSG).

    What begins with `remove` returns False, and does not raise, if there was nothing to remove.
    """

    # -- links -------------------------------------------------------------------------------------

    @netlink.understood()
    def link(self, name: str) -> Link | None:
        """Return the interface called `name`, None if there is none."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        try:
            (body,) = self.request(ifinfmsg(), netlink.RTM_GETLINK, 0, [("IFLA_IFNAME", name)])
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ERANGE):
                return None
            raise
        return _link(body)

    def set_link(self, index: int, *, mtu: int | None = None, is_up: bool | None = None) -> None:
        """Change the MTU of an interface, whether it is up, or both."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        message = ifinfmsg()
        message["index"] = index
        if is_up is not None:
            message["flags"] = _IFF_UP if is_up else 0
            message["change"] = _IFF_UP
        attributes = [] if mtu is None else [("IFLA_MTU", mtu)]
        self.request(message, netlink.RTM_NEWLINK, netlink.NLM_F_ACK, attributes)

    def remove_link(self, index: int) -> bool:
        """Delete an interface."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        message = ifinfmsg()
        message["index"] = index
        return self.remove(message, _RTM_DELLINK, [])

    # -- addresses ---------------------------------------------------------------------------------

    @netlink.understood()
    def addresses(self, index: int) -> list[IpInterface]:
        """Return the addresses of an interface with their prefix lengths, in the kernel's order."""
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            message = ifaddrmsg()
            message["family"] = family
            if self.filters:
                message["index"] = index
            for body in self.dump(message, _RTM_GETADDR, []):
                if body["index"] == index:
                    address = body.get_attr("IFA_LOCAL") or body.get_attr("IFA_ADDRESS")
                    found.append(ipaddress.ip_interface(f"{address}/{body['prefixlen']}"))
        return found

    def add_address(self, index: int, address: IpInterface) -> None:
        """Give an address to an interface."""
        flags = netlink.NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
        message, kind, attributes = _address_request(index, address, _RTM_NEWADDR)
        self.request(message, kind, flags, attributes)

    def remove_address(self, index: int, address: IpInterface) -> bool:
        """Take an address from an interface."""
        message, kind, attributes = _address_request(index, address, _RTM_DELADDR)
        return self.remove(message, kind, attributes)

    # -- routes ------------------------------------------------------------------------------------

    @netlink.understood()
    def routes(self, version: int, table: int, index: int | None = None) -> list[Route]:
        """Return the routes of a table, of all interfaces or of one."""
        message = netlink.route_message()()
        message["family"] = _family(version)
        attributes: netlink.Attributes = []
        if self.filters:
            attributes = [("RTA_TABLE", table)]
            if index is not None:
                attributes.append(("RTA_OIF", index))
        found = []
        try:
            for body in self.dump(message, netlink.RTM_GETROUTE, attributes):
                if body.get_attr("RTA_TABLE", body["table"]) != table:
                    continue
                if body["flags"] & _RTM_F_CLONED:
                    continue
                if index is None or body.get_attr("RTA_OIF") == index:
                    found.append(Route(_network(body), table))
        except OSError as error:
            if error.errno != errno.ENOENT:  # no such table
                raise
        return found

    def add_route(self, index: int, route: Route) -> None:
        """Add a route through an interface. Raises FileExistsError if the table has one already."""
        flags = netlink.NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
        scope = _RT_SCOPE_LINK if route.network.version == 4 else _RT_SCOPE_UNIVERSE
        message, attributes = _route_message(index, route, scope)
        message["proto"] = _RTPROT_BOOT
        message["type"] = _RTN_UNICAST
        self.request(message, _RTM_NEWROUTE, flags, attributes)

    def remove_route(self, index: int, route: Route) -> bool:
        """Take a route away."""
        message, attributes = _route_message(index, route, _RT_SCOPE_NOWHERE)
        return self.remove(message, _RTM_DELROUTE, attributes)

    @netlink.understood()
    def path_mtu(self, address: IpAddress, index: int = 0) -> int | None:
        """Return the MTU on the way to an address, None if there is no way.

        It is that of the route if that has one, else of the interface. `index` is for a link-local
        address.
        """
        message = netlink.route_message()()
        message["family"] = _family(address.version)
        message["dst_len"] = address.max_prefixlen
        attributes: netlink.Attributes = [("RTA_DST", str(address))]
        if index:
            attributes.append(("RTA_OIF", index))
        try:
            (body,) = self.request(message, netlink.RTM_GETROUTE, 0, attributes)
        except OSError:
            return None
        return self._route_mtu(body)

    @netlink.understood()
    def default_route_mtu(self) -> int | None:
        """Return the MTU on the way of the first IPv4 default route, None if there is none."""
        message = netlink.route_message()()
        message["family"] = socket.AF_INET
        attributes = [("RTA_TABLE", MAIN_TABLE)] if self.filters else []
        for body in self.dump(message, netlink.RTM_GETROUTE, attributes):
            if body["dst_len"] == 0 and body.get_attr("RTA_TABLE") == MAIN_TABLE:
                return self._route_mtu(body)
        return None

    def _route_mtu(self, body: Any) -> int | None:
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        metrics = body.get_attr("RTA_METRICS")
        if metrics is not None and (mtu := metrics.get_attr("RTAX_MTU")):
            return int(mtu)
        index = body.get_attr("RTA_OIF")
        for hop in body.get_attr("RTA_MULTIPATH") or ():
            index = index or hop["oif"]
        if not index:
            return None
        message = ifinfmsg()
        message["index"] = index
        (link,) = self.request(message, netlink.RTM_GETLINK, 0, [])
        return _link(link).mtu

    # -- rules -------------------------------------------------------------------------------------

    @netlink.understood()
    def rules(self, version: int) -> list[Rule]:
        """Return the rules that are of the form a Rule can have, by priority."""
        found = []
        for body in self.dump(_rule_header(version), _RTM_GETRULE, []):
            known = {"FRA_TABLE", "FRA_PRIORITY", "FRA_PROTOCOL"}
            known |= {"FRA_FWMARK", "FRA_FWMASK", "FRA_SUPPRESS_PREFIXLEN"}
            suppress = body.get_attr("FRA_SUPPRESS_PREFIXLEN", _NO_SUPPRESSION)
            mark = body.get_attr("FRA_FWMARK")
            is_inverted = bool(body["flags"] & _FIB_RULE_INVERT)
            if (
                body["action"] == _FR_ACT_TO_TBL
                and not body["src_len"]
                and not body["dst_len"]
                and {name for name, _ in body["attrs"]} <= known
                and suppress in (0, _NO_SUPPRESSION)
                and is_inverted == (mark is not None)
                and body.get_attr("FRA_FWMASK", _NO_SUPPRESSION) == _NO_SUPPRESSION
            ):
                table = body.get_attr("FRA_TABLE", body["table"])
                priority = body.get_attr("FRA_PRIORITY", 0)
                found.append(Rule(version, priority, table, mark, suppress == 0))
        return found

    @netlink.understood()
    def next_rule_priority(self, version: int) -> int:
        """Return the priority that the kernel would give to a new rule that asks for none."""
        bodies = list(self.dump(_rule_header(version), _RTM_GETRULE, []))
        priorities = [int(body.get_attr("FRA_PRIORITY", 0)) for body in bodies]
        return max(priorities[1] - 1, 0) if len(priorities) > 1 else 0

    def add_rule(self, rule: Rule) -> None:
        """Add a rule. Raises FileExistsError if there is the same one."""
        flags = netlink.NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
        message, attributes = _rule_message(rule)
        self.request(message, _RTM_NEWRULE, flags, attributes)

    def remove_rule(self, rule: Rule) -> bool:
        """Take exactly this rule away."""
        message, attributes = _rule_message(rule)
        return self.remove(message, _RTM_DELRULE, attributes)


def covers(routes: list[Route], network: IpNetwork) -> bool:
    """Whether one of the routes leads to all of a network (`ip route show match`)."""
    return any(
        route.network.version == network.version
        and route.network.prefixlen <= network.prefixlen
        and network.network_address in route.network
        for route in routes
    )


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _link(body: Any) -> Link:
    kind = body.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
    mtu = int(body.get_attr("IFLA_MTU"))
    return Link(body["index"], mtu, bool(body["flags"] & _IFF_UP), str(kind))


def _network(body: Any) -> IpNetwork:
    anything = "0.0.0.0" if body["family"] == socket.AF_INET else "::"  # noqa: S104 - no bind
    return ipaddress.ip_network(f"{body.get_attr('RTA_DST') or anything}/{body['dst_len']}")


def _address_request(
    index: int, address: IpInterface, kind: int
) -> tuple[Any, int, netlink.Attributes]:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    message = ifaddrmsg()
    message["family"] = _family(address.version)
    message["prefixlen"] = address.network.prefixlen
    message["scope"] = _RT_SCOPE_HOST if address.version == 4 and address.is_loopback else 0
    message["index"] = index
    return message, kind, [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]


def _route_message(index: int, route: Route, scope: int) -> tuple[Any, netlink.Attributes]:
    message = netlink.route_message()()
    message["family"] = _family(route.network.version)
    message["dst_len"] = route.network.prefixlen
    message["table"] = route.table if route.table < 256 else 0
    message["scope"] = scope
    attributes: netlink.Attributes = [("RTA_OIF", index), ("RTA_TABLE", route.table)]
    if route.network.prefixlen:
        attributes.append(("RTA_DST", str(route.network.network_address)))
    return message, attributes


def _rule_header(version: int) -> Any:
    from pyroute2.netlink.rtnl.fibmsg import fibmsg

    message = fibmsg()
    message["family"] = _family(version)
    return message


def _rule_message(rule: Rule) -> tuple[Any, netlink.Attributes]:
    message = _rule_header(rule.version)
    message["action"] = _FR_ACT_TO_TBL
    message["table"] = rule.table if rule.table < 256 else 0
    attributes: netlink.Attributes = [("FRA_PRIORITY", rule.priority), ("FRA_TABLE", rule.table)]
    if rule.not_fwmark is not None:
        message["flags"] = _FIB_RULE_INVERT
        attributes.append(("FRA_FWMARK", rule.not_fwmark))
    if rule.only_specific:
        attributes.append(("FRA_SUPPRESS_PREFIXLEN", 0))
    return message, attributes
