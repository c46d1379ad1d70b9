"""One process: start, readiness, signals and the orderly end. `platforms` knows the adapters.

The order is wireguard-go's: the TUN device, then the UAPI socket, then ready. It ends when it is
told to (SIGINT, SIGTERM, and in the foreground SIGHUP) or when what it serves is gone: the TUN
device, or its own socket file. SIGUSR2 replaces the program by the one that is installed now.
Whatever was opened is given back in the reverse order, also when the start fails half-way.

    1 protect the memory, before there is anything in it, and start the janitor if there will be one
    2 read the configuration file, open TUN and engine, or take over those of a wgd before us
    3 restore the configuration that a wgd before us has left
    4 serve the UAPI socket and the metrics, follow the link, bring the interface up, run the hooks
    5 give up root, for good
    6 say that we are ready, to who started us and to the service manager

A thread made before 5 has no privileges at all after it: none may be needed then.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from wgd.assembly import follow_system, open_tunnel
from wgd.background import Ready
from wgd.dataplane.choice import Choice, DataPlaneName, DataPlaneOptions, choose
from wgd.errors import WgdError
from wgd.logs import LogFormat, Logs
from wgd.managed import ManagedTunnel
from wgd.platforms import Platform, SystemTun, this_platform
from wgd.service import descriptors
from wgd.service.descriptors import Handed
from wgd.service.garbage import LongLived
from wgd.service.janitor import Janitor
from wgd.service.notify import ServiceManager
from wgd.service.privileges import User, drop_to, harden
from wgd.service.recorder import Recorder
from wgd.service.succession import Succession
from wgd.service.upgrade import Command
from wgd.tun.name_file import write_name_file
from wgd.uapi.listener import SocketFile
from wgd.uapi.server import UapiServer
from wgd.uapi.service import UapiService
from wgd.uapi.socket_policy import SocketPlace

if TYPE_CHECKING:
    from wgd.keylog import KeyLog
    from wgd.quick.plan import Plan

logger = logging.getLogger(__name__)

_END_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_UPGRADE: Final = ""
"""The reason to end that is no end."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the daemon is asked to do; a descriptor that is given is used instead of a new one.

    `uapi_place` is where the UAPI socket goes, None for nowhere; `command` is how to start this
    program again.
    """

    interface: str
    uapi_place: SocketPlace | None
    command: Command
    tun_fd: int | None = None
    uapi_fd: int | None = None
    handed: Handed = field(default_factory=Handed)
    dataplane: DataPlaneOptions = field(default_factory=DataPlaneOptions)
    config: Path | None = None
    user: User | None = None
    metrics: str | None = None
    metrics_group: str | None = None
    keylog: Path | None = None
    log_level: str = "error"
    log_format: LogFormat = "text"


def start(options: Options, ready: Ready) -> int:
    """Run the interface until it ends; return the exit status. Errors go to stderr in one line."""
    hardening = harden()
    trouble = ""
    try:
        while True:
            janitor = _janitor(options)
            logs = Logs(options.log_level, options.interface, options.log_format)
            try:
                hardening.log()
                if trouble:
                    logger.error("event=upgrade_failed reason=%r", trouble)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    named = runner.run(_Daemon(options, logs, janitor, ready).run())
            finally:
                logs.close()
            if named is None:
                return 0
            handed, trouble = _become_next(options, named)
            options = replace(options, handed=handed, tun_fd=None, uapi_fd=None)
            ready = _nobody_waits
    except (WgdError, OSError) as error:
        sys.stderr.write(f"wgd: {error}\n")
        return 1


def _janitor(options: Options) -> Janitor | None:
    """Return who removes the socket file when we may not; None if we may."""
    if options.handed.janitor is not None:
        return Janitor.adopt(options.handed.janitor)
    if options.user is not None and os.geteuid() == 0:
        return Janitor.start()
    return None


def _become_next(options: Options, named: list[tuple[str, int]]) -> tuple[Handed, str]:
    """Become the next program; return, if that fails, what to start again with, and why."""
    # A second signal must not end the program before it has a handler.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    return options.command.execute(named)


def _nobody_waits() -> None:
    """Stand in for `ready` when who started us was told long ago."""


class _Daemon:
    """One run, from the TUN device to the end or to the handing over of it."""

    def __init__(self, options: Options, logs: Logs, janitor: Janitor | None, ready: Ready) -> None:
        self._options = options
        self._logs = logs
        self._janitor = janitor
        self._tell_starter = ready
        self._manager = ServiceManager.from_environment(os.environ, os.getpid())
        self._succession = Succession(options.handed, self._manager)
        self._is_handing_over = False
        self._end_signal = ""
        """The first signal to end that came, perhaps when an upgrade was under way already."""
        self._socket_file: SocketFile | None = None
        self._plan: Plan | None = None
        self._upgrading: asyncio.Task[None] | None = None

    async def run(self) -> list[tuple[str, int]] | None:
        """Serve until the end; return what is to be handed over to the next program, if any.

        Raises WgdError or OSError if it cannot start.
        """
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._take_signals()
        self._manager.alive()  # after an exec it goes on counting
        succession = self._succession
        async with contextlib.AsyncExitStack() as opened:
            tun, recorder = await self._open(opened)
            if not await self._run_hooks():
                return None
            self._drop_privileges(opened, tun.name)
            succession.keep(tun, self._socket_file, recorder)
            self._manager.ready(f"Serving {tun.name}")
            opened.callback(self._manager.watch(self._loop))
            logger.info("event=ready restored=%s", "yes" if succession.is_restored else "no")
            self._tell_starter()
            while not (reason := await self._ended or self._end_signal):
                # What would end us from here on waits for the next program, across the exec.
                signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
                await recorder.settle()
                try:
                    named = succession.hand_over(tun, self._socket_file, recorder, self._janitor)
                except OSError as error:
                    self._refuse_upgrade(str(error))
                    self._ended = self._loop.create_future()
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
                    continue
                self._is_handing_over = True
                self._manager.reloading("Becoming the new program")
                self._manager.alive()
                if self._plan is not None:
                    self._plan.keep()
                logger.info("event=ending reason='upgrade'")
                return named
            logger.info("event=ending reason=%r", reason)
            self._manager.stopping(f"Ending: {reason}")
            succession.end()
        return None

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)

    def _end_by_signal(self, number: signal.Signals) -> None:
        if self._is_handing_over:  # another thread took it, or we did, just before
            signal.pthread_kill(threading.main_thread().ident or 0, number)
            return
        self._end_signal = self._end_signal or number.name
        self._end(number.name)

    # -- signals -----------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        for number in _END_SIGNALS:
            if (
                signal.getsignal(number) is not signal.SIG_IGN
            ):  # as nohup and the background have it
                self._loop.add_signal_handler(number, self._end_by_signal, number)
        self._loop.add_signal_handler(signal.SIGUSR1, self._logs.toggle_verbose)
        if (
            sys.platform == "linux"
        ):  # elsewhere there is no memory to hand the configuration over in
            self._loop.add_signal_handler(signal.SIGUSR2, self._start_upgrade)
        # Those that came during an upgrade have waited.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)

    def _start_upgrade(self) -> None:
        if self._upgrading is None and not self._ended.done():
            self._upgrading = self._loop.create_task(self._upgrade())

    async def _upgrade(self) -> None:
        """End in favour of the program on disk, if that can be started."""
        try:
            await self._options.command.check()
        except WgdError as error:
            self._refuse_upgrade(str(error))
            return
        self._end(_UPGRADE)

    def _refuse_upgrade(self, reason: str) -> None:
        logger.error("event=upgrade_refused reason=%r", reason)
        self._manager.status(f"Not upgraded: {reason}")
        self._upgrading = None

    # -- the start ---------------------------------------------------------------------------------

    async def _open(self, opened: contextlib.AsyncExitStack) -> tuple[SystemTun, Recorder]:
        """Do all that comes before the last hooks and readiness; `opened` undoes it."""
        options, succession = self._options, self._succession
        if options.config is not None:
            from wgd.quick.plan import Plan

            self._plan = Plan.load(os.fspath(options.config), options.interface)
            self._plan.begin(is_restored=succession.is_restored)
            opened.callback(self._plan.end)
        choice = self._choose()
        platform = this_platform(choice)
        tun = opened.enter_context(contextlib.closing(self._open_tun(platform)))
        key_log = self._open_key_log(opened)
        tunnel = open_tunnel(opened, platform, choice, tun, self._end, key_log=key_log)
        opened.enter_context(LongLived())
        recorder = Recorder(self._loop, tunnel)
        opened.callback(recorder.close)
        device = ManagedTunnel(recorder, tun.name, self._logs)
        is_configured = await succession.restore(device)

        await self._serve_uapi(opened, device, tun.name)
        write_name_file(options.interface, tun.name)
        await self._serve_metrics(opened, device, tun.name)

        def after_link(is_up: bool) -> None:
            recorder.note_port()
            if is_up:
                succession.wake_peers(self._loop, tunnel)

        # Listens from here on; what is slow to load it loads when the loop runs.
        follow_system(opened, platform, tunnel, self._end, after_link=after_link)
        if self._plan is not None:
            opened.push_async_callback(self._plan.revert)
            self._plan.apply(
                device, is_restored=succession.is_restored, is_configured=is_configured
            )
        return tun, recorder

    async def _run_hooks(self) -> bool:
        """Run PostUp. Returns False if we are to end meanwhile: that does not wait for commands."""
        if self._plan is None:
            return True
        hooks = self._loop.create_task(self._plan.after())
        await asyncio.wait((hooks, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if not hooks.done() and (reason := self._ended.result()) != _UPGRADE:
            logger.info("event=ending reason=%r", reason)
            self._manager.stopping(f"Ending: {reason}")
            self._succession.end()
            hooks.cancel()
            await asyncio.wait((hooks,))
            return False
        await hooks
        return True

    def _choose(self) -> Choice:
        options = self._options.dataplane
        queues = len(self._succession.tun_fds)
        if queues and options.name is not DataPlaneName.PORTABLE:
            # A TUN device keeps its queues for as long as it lives.
            options = replace(options, workers=queues)
        choice = choose(options)
        if queues > 1 and not choice.is_native:
            raise WgdError(
                f"the TUN device handed over has {queues} queues, which takes the native data "
                "plane: give --dataplane native, or end the old wgd first"
            )
        return choice

    def _open_tun(self, platform: Platform) -> SystemTun:
        options, handed = self._options, self._succession.tun_fds
        source = "LISTEN_FDNAMES, tun: " if handed else "WG_TUN_FD: "
        try:
            if handed:
                return platform.restore_tun(handed)
            return platform.open_tun(options.interface, options.tun_fd)
        except WgdError as error:
            if handed:
                self._manager.forget(descriptors.TUN)
            elif options.tun_fd is None:
                raise
            raise WgdError(f"{source}{error}") from error

    def _open_key_log(self, opened: contextlib.AsyncExitStack) -> "KeyLog | None":
        if self._options.keylog is None:
            return None
        from wgd.keylog import KeyLog

        try:
            return opened.enter_context(contextlib.closing(KeyLog(self._options.keylog)))
        except WgdError as error:
            self._do_without("keylog", error)
            return None

    def _do_without(self, what: str, error: WgdError) -> None:
        """Raise `error`, unless there is a tunnel at work: that is worth more than who watches."""
        if not self._succession.is_restored:
            raise error
        logger.error("event=%s_failed reason=%r", what, str(error))

    # -- who asks ----------------------------------------------------------------------------------

    async def _serve_uapi(
        self, opened: contextlib.AsyncExitStack, device: ManagedTunnel, name: str
    ) -> None:
        """Serve the UAPI socket, if there shall be one, until `opened` is closed.

        Its failure or loss is the daemon's end, but not in the sandbox: a tunnel there is
        somebody's way out, and goes on without.
        """
        options = self._options
        is_given = any(
            fd is not None for fd in (options.uapi_fd, options.handed.uapi, options.handed.uapi_own)
        )
        if not is_given:
            if options.uapi_place is None:
                return
            if options.uapi_place.is_sandbox:
                service = UapiService(self._loop, device, options.uapi_place, name)
                opened.push_async_callback(service.close)
                await service.start()
                return
        server = UapiServer(device)
        opened.push_async_callback(server.close)
        self._socket_file = socket_file = self._open_socket(name)
        opened.callback(socket_file.remove)
        socket_file.watch(self._loop, lambda: self._end("the UAPI socket was removed or replaced"))
        await server.start(socket_file.sock)

    def _open_socket(self, name: str) -> SocketFile:
        options = self._options
        if options.uapi_fd is not None:
            return _socket_from("WG_UAPI_FD", options.uapi_fd)
        if options.handed.uapi is not None:
            return _socket_from("LISTEN_FDNAMES, uapi", options.handed.uapi, owns_file=False)
        if options.handed.uapi_own is not None:
            try:
                return _socket_from("LISTEN_FDNAMES, uapi-own", options.handed.uapi_own)
            except WgdError as error:
                # Its file is gone: with the wgd before us, by somebody, or by the janitor.
                self._manager.forget(descriptors.UAPI_OWN)
                if options.uapi_place is None:
                    raise
                logger.warning("event=restored_socket_gone reason=%r", str(error))
        assert options.uapi_place is not None  # noqa: S101 - the caller has looked
        return SocketFile.create(options.uapi_place.directory, name)

    async def _serve_metrics(
        self, opened: contextlib.AsyncExitStack, device: ManagedTunnel, name: str
    ) -> None:
        options = self._options
        if options.metrics is None:
            return
        from wgd.watch.server import serve_metrics

        try:
            await serve_metrics(opened, options.metrics, options.metrics_group, name, device.status)
        except WgdError as error:
            self._do_without("metrics", error)

    # -- fewer privileges --------------------------------------------------------------------------

    def _drop_privileges(self, opened: contextlib.AsyncExitStack, name: str) -> None:
        user = self._options.user
        if user is None:
            return
        if self._janitor is not None:
            if self._options.handed.janitor is None:
                self._janitor.watch(*self._root_files(name))
            opened.callback(self._finish_janitor, self._janitor)
        if self._plan is not None:
            self._plan.hand_over(user.uid, user.gid)
        # What is loaded late may be out of the user's reach.
        late = ("wgd.watch.http", "wgd.watch.metrics") if self._options.metrics else ()
        drop_to(user, imports=late)

    def _finish_janitor(self, janitor: Janitor) -> None:
        if not self._is_handing_over:
            janitor.finish()

    def _root_files(self, name: str) -> list[Path]:
        """Return the socket files that were made as root."""
        files = []
        if self._socket_file is not None and self._socket_file.owns_file:
            files.append(self._socket_file.path)
        if self._options.metrics is not None and self._options.metrics.startswith("unix"):
            from wgd.watch.listener import unix_path

            files.append(unix_path(self._options.metrics, name))
        return files


def _socket_from(source: str, fd: int, *, owns_file: bool = True) -> SocketFile:
    try:
        return SocketFile.from_fd(fd, owns_file=owns_file)
    except WgdError as error:
        raise WgdError(f"{source}: {error}") from error
