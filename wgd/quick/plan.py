"""A wg-quick file carried out by the daemon itself (`wgd --config`), around its own life.

In the daemon's order: `load` checks the file; `begin` before the TUN is opened; `apply` when it
exists and its UAPI socket is served; `after` before readiness. At the end `revert` while it still
exists, `end` when it is gone. `keep` leaves everything to a successor that takes over the TUN.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from wgd.addresses import Endpoint
from wgd.configuration import DeviceChange, DeviceState
from wgd.ctl.config_file import ReadEndpoint, names_host
from wgd.ctl.errors import ValueTextError
from wgd.ctl.values import RETRIES_VARIABLE, EndpointReader
from wgd.errors import WgdError
from wgd.quick import config as files
from wgd.quick import hooks, journal, launch, network
from wgd.quick.config import QuickConfig
from wgd.quick.errors import QuickError
from wgd.quick.journal import Journal, Record, own_namespace
from wgd.quick.save import save
from wgd.quick.system import System
from wgd.quick.transaction import Checkpoint, Transaction, no_checkpoint, undo
from wgd.quick.up import close_hooks, syntax

logger = logging.getLogger(__name__)


class Tunnel(Protocol):
    """What is asked of the daemon's device; see `wgd.tunnel.Tunnel`."""

    def get(self) -> DeviceState:
        """Return a consistent snapshot."""

    def set(self, change: DeviceChange) -> None:
        """Apply a change whole, or raise ConfigurationError and change nothing."""


class Plan:
    """One file and one interface. No method but `load`, `begin`, `apply` and `after` raises.

    Not bound to an event loop: what is no coroutine blocks, for milliseconds and as long as the
    file's hooks and the programs for DNS and firewall take.
    """

    def __init__(
        self,
        config: QuickConfig,
        directory: Path | None,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> None:
        self._config = config
        self._directory = directory
        self._checkpoint = checkpoint
        self._journal = Journal(
            Record(config.interface, own_namespace(), by_daemon=True, hooks=config.hooks), directory
        )
        self._system = System(_say, _warn)
        self._tunnel: Tunnel | None = None
        self._is_restored = False
        self._follows_journal = False
        self._is_up = False
        self._is_over = False

    @classmethod
    def load(cls, file: str, interface: str, environment: Mapping[str, str] = os.environ) -> "Plan":
        """Return the plan for a file of any name, after a check of it and of the programs it needs.

        Nothing is changed. Raises QuickError: one line with file, line and cure.
        """
        path = Path(file).absolute()
        directory = journal_directory(environment, interface)
        if os.geteuid() != 0 and not os.access(path, os.R_OK):
            earlier = Journal.find(interface, directory)
            if earlier is not None and earlier.record.by_daemon:
                # We are the successor of one that was root then. What it did, its journal tells.
                plan = cls(QuickConfig(path, interface, b"", hooks=earlier.record.hooks), directory)
                plan._follows_journal = True
                return plan
        config = files.load(path, interface)
        change = syntax(config)
        plan = cls(config, directory)
        network.check(config, change, plan._system)
        return plan

    def begin(self, *, is_restored: bool = False) -> None:
        """Undo what a killed predecessor left, and run PreUp; or, with `is_restored`, adopt it.

        Raises WgdError and OSError, and leaves nothing behind then.
        """
        interface = self._config.interface
        earlier = Journal.find(interface, self._directory)
        if is_restored:
            if earlier is not None and earlier.record.namespace == own_namespace():
                earlier.record.by_daemon = True
                self._journal = earlier
            return
        if earlier is not None:
            if self._is_at_work(earlier):
                raise QuickError(f"{interface} is up already: say `wgdctl down {interface}` first")
            for problem in undo(earlier, self._system):
                _report(problem)
            close_hooks(earlier, self._system)
        try:
            self._hooks_begin("PreUp")
            hooks.run("PreUp", self._config.hooks.pre_up, interface, _say)
        except BaseException:
            self.end()
            raise

    def apply(
        self, tunnel: Tunnel, *, is_restored: bool = False, is_configured: bool = False
    ) -> None:
        """Configure the tunnel and the network around it.

        With `is_restored`, what is there is left alone and only what is missing is made; with
        `is_configured` the tunnel has its configuration, from its predecessor.
        After an error (WgdError, OSError) `revert` undoes what was done.
        """
        self._tunnel = tunnel
        self._is_restored = self._system.adopts = is_restored
        transaction = Transaction(self._journal, self._system, self._checkpoint)
        if self._follows_journal:
            transaction.redo()
            return
        change = None
        if not is_configured:
            change = self._config.device_change(_endpoint_reader(), _warn)
        network.set_up(self._config, change, tunnel, transaction)

    async def after(self) -> None:
        """Run PostUp, while the loop answers what its commands ask. Raises QuickError."""
        if not self._is_restored:
            self._hooks_begin("PostUp")
            commands = self._config.hooks.post_up
            await hooks.run_in_loop("PostUp", commands, self._config.interface, _say)
        self._is_up = True

    def hand_over(self, uid: int, gid: int) -> None:
        """Let the user that the daemon will be read its journal, and close it."""
        try:
            self._journal.hand_over(uid, gid)
        except OSError as error:
            _warn(f"cannot hand the journal over: {error}")

    def keep(self) -> None:
        """Undo nothing at the end: a successor takes over."""
        self._is_over = True

    async def revert(self) -> None:
        """Run PreDown, save the file if it asks for that, and undo the network."""
        if self._is_over:
            return
        record = self._journal.record
        if self._is_up or "PostUp" in record.began:
            try:
                commands = self._config.hooks.pre_down
                await hooks.run_in_loop("PreDown", commands, record.interface, _say)
            except WgdError as error:
                _report(str(error))
        if self._is_up and self._config.save_config and self._tunnel is not None:
            try:
                save(self._config, self._tunnel.get(), self._system.network)
            except (WgdError, OSError) as error:
                _report(str(error))
        self._undo()

    def end(self) -> None:
        """Undo what is left, and run PostDown."""
        if self._is_over:
            return
        self._is_over = True
        record = self._journal.record
        self._undo()
        if self._is_up or record.began:
            try:
                commands = self._config.hooks.post_down
                hooks.run("PostDown", commands, record.interface, _say)
            except WgdError as error:
                _report(str(error))
        self._system.close()

    def _is_at_work(self, earlier: Journal) -> bool:
        """Whether the one that has made a journal still is.

        Its socket does not tell here: that may be a socket unit's, or elsewhere.
        """
        interface = earlier.record.interface
        if earlier.record.namespace == own_namespace():
            return self._system.network.link(interface) is not None
        return launch.is_alive(launch.socket_path(interface, ""))

    def _undo(self) -> None:
        try:
            # What others have left to us to put back is there only: see `give_back_sysctl`.
            written = Journal.find(self._config.interface, self._directory)
        except QuickError as error:
            _warn(str(error))
            written = None
        if written is not None:
            self._journal.record.steps = written.record.steps
        for problem in undo(self._journal, self._system):
            _report(problem)

    def _hooks_begin(self, name: str) -> None:
        commands = self._config.hooks.pre_up if name == "PreUp" else self._config.hooks.post_up
        if commands:
            self._journal.began(name)


def journal_directory(environment: Mapping[str, str], interface: str) -> Path | None:
    """Return where a journal can be, or is that a predecessor has handed over to us.

    That is /run/wgd, which is root's; for others what systemd gave them; else None. Raises
    QuickError for a /run/wgd that root must not use.
    """
    given = [Path(path) for path in environment.get("RUNTIME_DIRECTORY", "").split(":") if path]
    if os.geteuid() == 0 or Journal.is_readable(interface, journal.DIRECTORY):
        candidates = [journal.DIRECTORY, *given]
    else:
        candidates = [*given, journal.DIRECTORY]
    for directory in candidates:
        try:
            journal.make_directory(directory)
        except OSError:
            continue
        if os.access(directory, os.W_OK) or Journal.is_readable(interface, directory):
            return directory
    _warn("no directory for a journal: what a killed wgd leaves will have to be undone by hand")
    return None


def _endpoint_reader() -> ReadEndpoint:
    """Return a reader that leaves a name to the daemon if it cannot be looked up right now."""
    reader = EndpointReader({RETRIES_VARIABLE: "0"}, _warn, lambda _seconds: None)

    def read(text: str) -> Endpoint | None:
        try:
            return reader.read(text)
        except ValueTextError as error:
            if not names_host(text):
                raise
            _warn(f"{error}; it will be looked up again when there is something to send")
            return None

    return read


def _say(command: str) -> None:
    logger.info("event=quick command=%r", command)


def _report(problem: str) -> None:
    logger.error("event=quick_failed problem=%r", problem)


def _warn(text: str) -> None:
    logger.warning("event=quick_warning text=%r", text)
