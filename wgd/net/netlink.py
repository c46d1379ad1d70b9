"""Plain netlink sockets, and pyroute2 to encode and decode what goes over them.

Opening a socket is cheap and imports nothing, so a watcher can listen before the daemon reports
readiness; the messages wait in the socket. pyroute2 takes a quarter of a second to import and is
imported by the first call that has a message to encode or decode.
"""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

RECEIVE_SIZE = 65_536  # bytes; a link message with all its attributes is about 1,500
REQUEST_TIMEOUT_SECONDS = 1.0  # the kernel answers in microseconds, before send() returns

# What is not there now and may be soon: descriptors and memory.
PASSING_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

# linux/netlink.h
NLMSG_ERROR = 2
NLM_F_REQUEST = 1
NLM_F_ACK = 4
SOL_NETLINK = 270
NETLINK_LISTEN_ALL_NSID = 8

# linux/rtnetlink.h
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_GETROUTE = 26
RTM_NEWNSID = 88
RTM_GETNSID = 90
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_ROUTE = 0x40
RTMGRP_IPV4_RULE = 0x80
RTMGRP_IPV6_IFADDR = 0x100
RTMGRP_IPV6_ROUTE = 0x400
RTMGRP_IPV6_RULE = 1 << 18

Attributes = list[tuple[str, Any]]


class Message(NamedTuple):
    """A decoded netlink message: what its header says, and `body`, pyroute2's message.

    `error` is a positive errno, 0 for none; an acknowledgement is an NLMSG_ERROR without error.
    """

    kind: int
    sequence: int
    port_id: int
    error: int
    body: Any


def open_socket(groups: int = 0) -> socket.socket:
    """Return a non-blocking route netlink socket that listens to `groups` (RTMGRP_ bits).

    Raises OSError.
    """
    opened = socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        socket.NETLINK_ROUTE,
    )
    try:
        opened.bind((0, groups))
    except OSError:
        opened.close()
        raise
    return opened


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Raise OSError (EBADMSG) for a message that is none: pyroute2 decodes an attribute when it is
    asked for, and then raises whatever the decoding comes upon. Also a decorator.
    """
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG)) from error


@cache
def route_message() -> Any:
    """Return pyroute2's class of route messages.

    It decodes RTA_ENCAP, which nobody here reads, by looking for RTA_ENCAP_TYPE behind it, and for
    ever where the bytes there are zeros. So that attribute is to stay plain bytes, which must be
    said before the first of these messages is made.
    """
    from pyroute2.netlink.rtnl.rtmsg import rtmsg, rtmsg_base

    rtmsg_base.encap_info = staticmethod(lambda route, *_, **__: route.hex)
    return rtmsg


@understood()
def decode(data: bytes) -> list[Message]:
    """Decode the messages of one datagram from the kernel. Raises OSError (EBADMSG)."""
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

    route_message()
    messages = []
    for body in MarshalRtnl().parse(data):
        header = body["header"]
        is_error = header["type"] == NLMSG_ERROR
        messages.append(
            Message(
                header["type"],
                header["sequence_number"],
                header["pid"],
                abs(body["error"]) if is_error else 0,
                body,
            )
        )
    return messages


def link_request(sequence: int, name: str, namespace_id: int | None) -> bytes:
    """Encode a request for the state of the interface `name`, here or in a namespace by its id."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    attributes: Attributes = [("IFLA_IFNAME", name)]
    if namespace_id is not None:
        attributes.append(("IFLA_IF_NETNSID", namespace_id))
    return _encode(ifinfmsg(), RTM_GETLINK, sequence, attributes)


@understood()
def has_packet_information(name: str) -> bool:
    """Return whether the TUN interface `name` puts packet information before each packet.

    Raises OSError.
    """
    link = _request(link_request(1, name, None))
    return bool(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_TUN_PI"))


@understood()
def get_namespace_id(namespace_fd: int) -> int:
    """Return the id by which our network namespace knows another one; assigns one if it has none.

    Unlike a descriptor or a socket, an id does not keep that namespace alive. Raises OSError.
    """
    from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

    choose_any = 2**32 - 1
    by_fd = ("NETNSA_FD", namespace_fd)
    with contextlib.suppress(FileExistsError):  # the kernel assigns one when an interface moves
        _request(_encode(nsidmsg(), RTM_NEWNSID, 1, [by_fd, ("NETNSA_NSID", choose_any)]))
    return int(_request(_encode(nsidmsg(), RTM_GETNSID, 1, [by_fd])).get_attr("NETNSA_NSID"))


@understood()
def get_route_interface(
    family: int, destination: str, source: str, fwmark: int, interface_index: int
) -> int:
    """Return the index of the interface by which a marked datagram would leave, 0 for none.

    `interface_index` is for link-local destinations, else 0. Raises OSError when there is no route.
    """
    bits = 128 if family == socket.AF_INET6 else 32
    message = route_message()()
    message["family"] = family
    message["dst_len"] = message["src_len"] = bits
    attributes: Attributes = [("RTA_DST", destination), ("RTA_SRC", source)]
    if fwmark:
        attributes.append(("RTA_MARK", fwmark))
    if interface_index:
        attributes.append(("RTA_OIF", interface_index))
    return int(_request(_encode(message, RTM_GETROUTE, 1, attributes)).get_attr("RTA_OIF") or 0)


def _encode(message: Any, kind: int, sequence: int, attributes: Attributes) -> bytes:
    header = message["header"]
    header["type"] = kind
    header["flags"] = NLM_F_REQUEST | (NLM_F_ACK if kind == RTM_NEWNSID else 0)
    header["sequence_number"] = sequence
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


def _request(data: bytes) -> Any:
    """Send one request on a socket of its own and return the answer's body. Raises OSError."""
    with open_socket() as asked:
        asked.settimeout(REQUEST_TIMEOUT_SECONDS)
        asked.send(data)
        answer = decode(asked.recv(RECEIVE_SIZE))[0]
    if answer.error:
        raise OSError(answer.error, os.strerror(answer.error))
    return answer.body
