"""`save`: the file of an interface, written anew from what the interface is now.

As wg-quick does it, and better in two things: an endpoint that the file gives by a host name stays
that name, and DNS search domains are kept.
"""

import os
from collections.abc import Iterator
from typing import Final

from wgd.configuration import DeviceState
from wgd.ctl import config_file, values
from wgd.quick.config import QuickConfig
from wgd.quick.errors import QuickError
from wgd.quick.rtnetlink import Rtnetlink
from wgd.quick.up import syntax
from wgd.uapi.client import Device

_SECTION: Final = "[Interface]\n"
_ENDPOINT: Final = "Endpoint = "


def save(config: QuickConfig, device: Device | DeviceState, network: Rtnetlink) -> None:
    """Write the file anew, in one go and for its owner only. Raises QuickError."""
    text = render(config, device, network)
    temporary = config.path.with_name(f"{config.path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.fsencode(text))
            file.flush()
            os.fsync(descriptor)
        temporary.replace(config.path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise QuickError(f"cannot write {config.path}: {error.strerror}") from None


def render(config: QuickConfig, device: Device | DeviceState, network: Rtnetlink) -> str:
    """Return the text of the file."""
    interface_lines = "".join(f"{line}\n" for line in _quick_lines(config, network))
    sections = config_file.render(device).split("\n[Peer]\n")
    sections[0] = sections[0].replace(_SECTION, _SECTION + interface_lines, 1)
    names = {peer.public_key: peer.endpoint_host for peer in syntax(config).peers}
    for n, peer in enumerate(device.peers, 1):
        name = names.get(peer.public_key)
        if name and peer.endpoint is None:  # it could not be looked up so far
            sections[n] = f"{sections[n].rstrip()}\n{_ENDPOINT}{name}\n"
        elif name:
            numeric = f"{_ENDPOINT}{values.endpoint_text(peer.endpoint)}\n"
            sections[n] = sections[n].replace(numeric, f"{_ENDPOINT}{name}\n", 1)
    return "\n[Peer]\n".join(sections).rstrip("\n") + "\n"


def _quick_lines(config: QuickConfig, network: Rtnetlink) -> Iterator[str]:
    link = network.link(config.interface)
    own = set(config.addresses)
    for address in network.addresses(link.index) if link else ():
        # The kernel gives a TUN device a link-local address of its own.
        if address in own or not (address.version == 6 and address.is_link_local):
            yield f"Address = {address}"
    for server in (*config.dns_servers, *config.dns_search):
        yield f"DNS = {server}"
    if config.mtu is not None and link is not None:
        yield f"MTU = {link.mtu}"
    if config.table_text:
        yield f"Table = {config.table_text}"
    if config.save_config:
        yield "SaveConfig = true"
    hooks = config.hooks
    for name, commands in (
        ("PreUp", hooks.pre_up),
        ("PostUp", hooks.post_up),
        ("PreDown", hooks.pre_down),
        ("PostDown", hooks.post_down),
    ):
        for command in commands:
            yield f"{name} = {command}"
