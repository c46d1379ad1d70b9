"""`down`: everything that `up` did is undone, whatever has become of it since."""

from collections.abc import Callable
from pathlib import Path

from wgd.quick import dns, firewall, hooks, launch
from wgd.quick.config import QuickConfig
from wgd.quick.dns import Dns
from wgd.quick.errors import QuickError
from wgd.quick.firewall import Firewall
from wgd.quick.journal import Journal, Record, own_namespace
from wgd.quick.launch import Daemon
from wgd.quick.rtnetlink import MAIN_TABLE, Rule
from wgd.quick.steps import Rules
from wgd.quick.system import System
from wgd.quick.transaction import undo
from wgd.uapi.client import Client, Device, DeviceNotFoundError


def down(
    interface: str,
    config: QuickConfig | None,
    *,
    system: System,
    client: Client,
    directory: Path,
    save: Callable[[], None],
) -> None:
    """Take an interface down; `save` is called before, if the file asks for it.

    A config of None means that there is no file any more. The caller holds the lock of the
    interface in `directory`. Raises WgdError and OSError: an error before anything was undone, or
    the first one of what could not be undone; all the rest is then.
    """
    journal = Journal.find(interface, directory)
    if journal is None:
        # That of a systemd unit's daemon: not root's, so it is not read.
        is_units = (directory / interface / f"{interface}.json").exists()
        if is_units and system.network.link(interface) is not None:
            raise _by_daemon(interface)
        journal = _from_file(interface, config, system, client)
    record = journal.record
    directories = [s.uapi_directory for s in record.steps if isinstance(s, Daemon)]
    path = launch.socket_path(interface, *(directories or [str(system.uapi_directory or "")]))
    is_alive = launch.is_alive(path)
    if record.by_daemon and (is_alive or system.network.link(interface) is not None):
        raise _by_daemon(interface)
    if is_alive and record.namespace != own_namespace():
        raise QuickError(
            f"{interface} was brought up in another network namespace: take it down there"
        )
    todo = config.hooks if config is not None else record.hooks
    try:
        hooks.run("PreDown", todo.pre_down, interface, system.say)
    except QuickError as error:
        if is_alive:
            raise
        system.warn(str(error))
    if is_alive and config is not None and config.save_config:
        save()
    problems = undo(journal, system)
    launch.remove_dead_socket(path)
    for problem in problems:
        system.warn(problem)
    hooks.run("PostDown", todo.post_down, interface, system.say)
    if problems:
        raise QuickError(f"{interface} is not wholly down; say `wgdctl down` again for the rest")


def _by_daemon(interface: str) -> QuickError:
    return QuickError(
        f"{interface} was brought up by `wgd --config`, which undoes it at its end: stop that, "
        f"for example by `systemctl stop wgd@{interface}`"
    )


def _from_file(
    interface: str, config: QuickConfig | None, system: System, client: Client
) -> Journal:
    """Return a journal made up from the file and the device: somebody else brought it up.

    Raises QuickError if there is nothing to take down.
    """
    try:
        device = client.device(interface)
    except DeviceNotFoundError:
        if system.network.link(interface) is not None:
            raise QuickError(
                f"{interface} is no interface of a userspace daemon: take it down with what "
                "brought it up"
            ) from None
        raise QuickError(f"{interface} is not up") from None
    if system.network.link(interface) is None:
        raise QuickError(
            f"{interface} was brought up in another network namespace: take it down there"
        )
    record = Record(interface, own_namespace())
    record.steps.append(Daemon(interface, str(system.uapi_directory or "")))
    if config is not None:
        record.hooks = config.hooks
        if config.dns_servers:
            tool = dns.check_tool(config, system)
            record.steps.append(Dns(interface, tool, config.dns_servers, config.dns_search))
    has_default = any(not prefix.length for peer in device.peers for prefix in peer.allowed_ips)
    if has_default and device.fwmark and (config is None or config.table is None):
        tool = firewall.check_tool(system)
        for version in (4, 6):
            record.steps.append(Rules(_rules_of(version, device, system)))
            record.steps.append(Firewall(interface, tool, version, device.fwmark, ()))
    return Journal(record, None)


def _rules_of(
    version: int, device: Device, system: System
) -> tuple[tuple[int, int, int, int | None, bool], ...]:
    """Return the rules that wg-quick adds for a mark: its own, and the one added after it."""
    rules = system.network.rules(version)
    found: list[Rule] = []
    for rule in rules:
        if rule.not_fwmark == device.fwmark == rule.table:
            main = Rule(version, rule.priority - 1, MAIN_TABLE, only_specific=True)
            found += [rule, *(each for each in rules if each == main)]
    return tuple((r.version, r.priority, r.table, r.not_fwmark, r.only_specific) for r in found)
