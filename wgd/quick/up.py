"""`up`: a file's interface from nothing, or nothing at all."""

from pathlib import Path
from typing import NamedTuple

from wgd.addresses import Endpoint
from wgd.configuration import ControlChange, DeviceChange
from wgd.ctl import values
from wgd.ctl.config_file import names_host
from wgd.ctl.values import RETRIES_VARIABLE, EndpointReader
from wgd.quick import hooks, launch, network
from wgd.quick.config import QuickConfig
from wgd.quick.errors import QuickError
from wgd.quick.journal import Journal, Record, own_namespace
from wgd.quick.launch import Daemon
from wgd.quick.system import System
from wgd.quick.transaction import Checkpoint, Transaction, no_checkpoint, undo
from wgd.uapi.client import Client, Device


class UapiDevice(NamedTuple):
    """A device that is configured over its socket."""

    client: Client
    name: str

    def get(self) -> Device:
        """Return what it is now. Raises DeviceError."""
        return self.client.device(self.name)

    def set(self, change: DeviceChange) -> None:
        """Apply a change, then tell it the host names of the endpoints. Raises WgdError."""
        self.client.configure(self.name, change)
        named = [(p.public_key, p.endpoint_host) for p in change.peers if not p.remove]
        hosts = tuple((key, host) for key, host in named if host is not None)
        if hosts:
            self.client.control(self.name, ControlChange(endpoint_hosts=hosts))


def syntax(config: QuickConfig) -> DeviceChange:
    """Check the lines for `wg` without asking the resolver, and return all but endpoints
    with a name.

    Raises QuickError.
    """
    return config.device_change(_check_endpoint, lambda _: None)


def _check_endpoint(text: str) -> Endpoint | None:
    """Return a numeric endpoint, None for one with a host name. Raises ValueTextError."""
    if names_host(text) and text.count(":") == 1 and not text.startswith(":"):
        values.port(text.partition(":")[2])
        return None
    return EndpointReader({RETRIES_VARIABLE: "0"}, lambda _: None, lambda _: None).read(text)


def up(
    config: QuickConfig,
    *,
    system: System,
    client: Client,
    endpoints: EndpointReader,
    directory: Path,
    checkpoint: Checkpoint = no_checkpoint,
) -> None:
    """Bring an interface up. Raises WgdError and OSError, and then has undone all of it.

    The caller holds the lock of the interface in `directory`.
    """
    interface = config.interface
    change = syntax(config)
    network.check(config, change, system)
    earlier = Journal.find(interface, directory)
    _check_free(interface, system)
    if earlier is not None:
        system.warn(f"undoing what an earlier {interface} has left")
        _raise_first(undo(earlier, system))
        close_hooks(earlier, system)
    journal = Journal(Record(interface, own_namespace(), hooks=config.hooks), directory)
    transaction = Transaction(journal, system, checkpoint)
    try:
        if config.hooks.pre_up:
            _hooks(transaction, "PreUp", config.hooks.pre_up)
        change = config.device_change(endpoints.read, system.warn)
        transaction.do(Daemon(interface, str(system.uapi_directory or "")))
        network.set_up(config, change, UapiDevice(client, interface), transaction)
        if config.hooks.post_up:
            _hooks(transaction, "PostUp", config.hooks.post_up)
    except BaseException:
        for problem in take_back(journal, system):
            system.warn(problem)
        raise


def close_hooks(earlier: Journal, system: System) -> None:
    """Run PostDown of a killed predecessor if it began hooks here; a failure is only told."""
    record = earlier.record
    if not record.began or record.namespace != own_namespace():
        return
    try:
        hooks.run("PostDown", record.hooks.post_down, record.interface, system.say)
    except QuickError as error:
        system.warn(str(error))


def take_back(journal: Journal, system: System) -> list[str]:
    """Undo an `up` that failed, and return what went wrong.

    The hooks that go with those that were begun are run, so that these can clean up, too.
    """
    problems: list[str] = []

    def attempt(name: str, commands: tuple[str, ...]) -> None:
        try:
            hooks.run(name, commands, record.interface, system.say)
        except QuickError as error:
            problems.append(str(error))

    record = journal.record
    if "PostUp" in record.began:
        attempt("PreDown", record.hooks.pre_down)
    problems += undo(journal, system)
    if record.began:
        attempt("PostDown", record.hooks.post_down)
    return problems


def _hooks(transaction: Transaction, name: str, commands: tuple[str, ...]) -> None:
    journal = transaction.journal
    journal.began(name)
    transaction.act(
        name,
        lambda: hooks.run(name, commands, journal.record.interface, transaction.system.say),
    )


def _check_free(interface: str, system: System) -> None:
    cure = f"say `wgdctl down {interface}` first"
    if system.network.link(interface) is not None:
        raise QuickError(f"{interface} already exists: {cure}")
    path = launch.socket_path(interface, str(system.uapi_directory or ""))
    if launch.is_alive(path):
        raise QuickError(
            f"a daemon for {interface} listens on {path} already, in another network namespace: "
            f"{cure}, there"
        )


def _raise_first(problems: list[str]) -> None:
    if problems:
        raise QuickError(problems[0])
