"""What Linux says of interfaces, routes, settings and lost datagrams. Nothing is changed or sent.

Routes are asked one by one, as a packet would find them, because rules, tables and marks decide.
"""

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

import wgd
from wgd.constants import SECOND_NS
from wgd.ctl.doctor.facts import EndpointPath, Link, Route, System
from wgd.ctl.doctor.rules.common import split_endpoint

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IFF_UP: Final = 1
_RTN_LOCAL: Final = 2
_SETTINGS: Final = Path("/proc/sys/net")
_DAY_NS: Final = 86_400 * SECOND_NS
# Addresses that stand for "everywhere": a prefix as short as that holds no better one.
_ANYWHERE: Final = ("1.1.1.1", "2606:4700:4700::1111")


class Routes:
    """A context manager that asks the kernel. Raises OSError when it cannot be asked at all."""

    def __init__(self) -> None:
        self._netlink = IPRoute()
        self.links: Mapping[str, Link] = {}
        self._names: dict[int, str] = {}

    def __enter__(self) -> "Routes":
        try:
            self._read_links()
        except NetlinkError as error:
            self._netlink.close()
            raise OSError(abs(error.code), str(error)) from error
        return self

    def __exit__(self, *_exception: object) -> None:
        self._netlink.close()

    def path(self, endpoint: str, fwmark: int) -> EndpointPath:
        """Return how a datagram gets to an endpoint, with the device's mark and without one."""
        host, _ = split_endpoint(endpoint)
        zone = endpoint.rpartition(":")[0].strip("[]").partition("%")[2]
        marked = self.route(host, fwmark, zone)
        return EndpointPath(marked, self.route(host, 0, zone) if fwmark else marked)

    def prefix_route(self, prefix: str) -> Route:
        """Return where a packet for some address in `prefix` goes that is not our own."""
        return self.route(self._address_in(prefix))

    def route(self, host: str, fwmark: int = 0, zone: str = "") -> Route:
        """Return where a packet for `host` goes, as the kernel decides it now."""
        request: dict[str, Any] = {"dst": host}
        if fwmark:
            request["mark"] = fwmark
        if zone:
            request["oif"] = int(zone) if zone.isdigit() else self._index(zone)
        try:
            answer = next(iter(self._netlink.route("get", **request)))
        except NetlinkError as error:
            return Route(error=abs(error.code))
        name = self._names.get(answer.get_attr("RTA_OIF"), "")
        link = self.links.get(name)
        metrics = answer.get_attr("RTA_METRICS")
        mtu = metrics.get_attr("RTAX_MTU") if metrics is not None else None
        return Route(
            name,
            mtu or (link.mtu if link is not None else 0),
            is_local=answer["type"] == _RTN_LOCAL,
        )

    def _read_links(self) -> None:
        addresses: dict[int, list[str]] = {}
        for each in self._netlink.get_addr():
            address = each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")
            addresses.setdefault(each["index"], []).append(f"{address}/{each['prefixlen']}")
        links = [
            Link(
                each["index"],
                each.get_attr("IFLA_IFNAME"),
                each.get_attr("IFLA_MTU"),
                bool(each["flags"] & _IFF_UP),
                each.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
                tuple(addresses.get(each["index"], ())),
            )
            for each in self._netlink.link("dump")
        ]
        self.links = {link.name: link for link in links}
        self._names = {link.index: link.name for link in links}

    def _index(self, name: str) -> int:
        return self.links[name].index if name in self.links else 0

    def _address_in(self, prefix: str) -> str:
        network = ipaddress.ip_network(prefix, strict=False)
        if network.num_addresses == 1:
            return str(network.network_address)
        for anywhere in map(ipaddress.ip_address, _ANYWHERE):
            if network.prefixlen < 8 and anywhere in network:
                return str(anywhere)
        # What is in a network of our own goes there, and not where the rest of the prefix goes.
        taken = _networks_within(network, self.links.values())
        candidate = network.network_address + (0 if network.num_addresses == 2 else 1)
        while (around := next((each for each in taken if candidate in each), None)) is not None:
            if int(around.broadcast_address) >= int(network.broadcast_address):
                break  # none is left
            candidate = around.broadcast_address + 1
        return str(candidate)


def _networks_within(network: _Network, links: Iterable[Link]) -> list[_Network]:
    """Return our own addresses, and the networks they are in, that are parts of `network`."""
    own = [ipaddress.ip_interface(address) for link in links for address in link.addresses]
    parts = {part for each in own for part in (each.network, ipaddress.ip_network(each.ip))}
    return [
        part
        for part in parts
        if part.version == network.version
        and part.prefixlen > network.prefixlen
        and part.network_address in network
    ]


def settings(interfaces: Iterable[str], listen_port: int) -> System:
    """Return the settings that matter to these interfaces; what cannot be read is left out."""
    everywhere = _number("ipv4/conf/all/rp_filter") or 0
    filters = {
        name: max(everywhere, own)
        for name in interfaces
        if (own := _number(f"ipv4/conf/{name}/rp_filter")) is not None
    }
    marks = _number("ipv4/conf/all/src_valid_mark")
    try:
        made_ns = (Path(wgd.__file__).stat().st_mtime_ns) - _DAY_NS
    except OSError:
        made_ns = 0
    return System(
        reverse_path_filter=filters,
        marks_are_valid_sources=None if marks is None else bool(marks),
        largest_receive_buffer=_number("core/rmem_max"),
        overflowed_datagrams=_overflowed(listen_port),
        software_made_ns=max(made_ns, 0),
    )


def is_in_our_namespace(pid: int) -> bool | None:
    """Return whether a process is in our network namespace; None if that cannot be told."""
    try:
        return Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net")
    except OSError:
        return None


def _number(name: str) -> int | None:
    try:
        return int((_SETTINGS / name).read_text())
    except (OSError, ValueError):
        return None


def _overflowed(port: int) -> int:
    """Return how many datagrams the UDP sockets on a local port had no room for."""
    count = 0
    for table in ("udp", "udp6"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for row in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
                fields = row.split()
                if port and int(fields[1].rpartition(":")[2], 16) == port:
                    count += int(fields[-1])
    return count


def addresses_of(host: str) -> tuple[str, ...]:
    """Return what the resolver says of a name, each address once. Raises OSError."""
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return tuple(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in answers))
