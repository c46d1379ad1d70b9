"""From one wgd to the next: what is taken over at the start, kept, and handed over at the end.

After a crash the service manager hands the next wgd what it has kept; in an upgrade the program
hands it to its successor itself. It is the same either way: the TUN device with its addresses and
routes, the listening UAPI socket with those who wait, and the configuration.
"""

import asyncio
import logging
import os
import sys
import time
from typing import Final

from wgd.errors import WgdError
from wgd.managed import ManagedTunnel
from wgd.platforms import SystemTun
from wgd.service import descriptors
from wgd.service.descriptors import Handed
from wgd.service.janitor import Janitor
from wgd.service.notify import ServiceManager
from wgd.service.recorder import Recorder, restore
from wgd.service.state import StateFile
from wgd.tunnel import Tunnel
from wgd.uapi.listener import SocketFile

logger = logging.getLogger(__name__)

_WAKES_PER_TURN: Final = 16
"""How many handshakes are begun before the loop may see to something else."""


class Succession:
    """What was handed to us, and who keeps what we have for the next."""

    def __init__(self, handed: Handed, manager: ServiceManager) -> None:
        self._manager = manager
        self.tun_fds = self._living(handed.tun)
        """The TUN device that was handed over, one descriptor a queue; empty for none."""
        self._handed_state = handed.state
        self._state: StateFile | None = None
        self._had_session: tuple[bytes, ...] = ()
        """Peers to do a handshake with as soon as the link is up."""

    @property
    def is_restored(self) -> bool:
        """Whether we go on with the TUN device of a wgd before us."""
        return bool(self.tun_fds)

    def _living(self, fds: tuple[int, ...]) -> tuple[int, ...]:
        """Return descriptors of a TUN device, but give back those of a deleted one."""
        if fds and sys.platform == "linux":
            from wgd.tun.linux import is_deleted

            if is_deleted(fds[0]):
                logger.warning("event=restored_tun_gone")
                self._manager.forget(descriptors.TUN)
                for fd in fds:
                    os.close(fd)
                return ()
        return fds

    # -- the start ---------------------------------------------------------------------------------

    async def restore(self, device: ManagedTunnel) -> bool:
        """Apply the configuration that was handed over; whether there was one."""
        fd, self._handed_state = self._handed_state, None
        if fd is None:
            return False
        try:
            state = StateFile.adopt(fd)
            messages = state.read()
        except (WgdError, OSError) as error:
            os.close(fd)
            self._manager.forget(descriptors.STATE)
            logger.error("event=state_unusable reason=%r", str(error))  # noqa: TRY400 - enough said
            return False
        self._state = state
        self._had_session = await restore(messages, device)
        logger.info("event=restored bytes=%d", len(messages))
        return True

    def keep(self, tun: SystemTun, socket_file: SocketFile | None, recorder: Recorder) -> None:
        """Have the service manager keep what the next wgd needs, should this one be killed.

        The configuration is written down from now on. What the manager has already it does not take
        twice.
        """
        if not self._manager.is_there or sys.platform != "linux":
            return
        try:
            self._state = self._state or StateFile.create()
            recorder.start(self._state)
        except OSError as error:
            logger.error(  # noqa: TRY400 - the reason is all there is to say
                "event=state_not_kept reason=%r", error.strerror
            )
            return
        self._manager.store(descriptors.TUN, _queues(tun))
        if socket_file is not None and socket_file.owns_file:
            self._manager.store(descriptors.UAPI_OWN, [socket_file.sock.fileno()])
        self._manager.store(descriptors.STATE, [self._state.fileno()])

    def wake_peers(self, loop: asyncio.AbstractEventLoop, tunnel: Tunnel) -> None:
        """Begin the handshakes with peers whose sessions have ended with the program before us.

        They do not know, and would send into the void for 15 seconds. Call it when the link is up.
        """
        now, self._had_session = (
            self._had_session[:_WAKES_PER_TURN],
            self._had_session[_WAKES_PER_TURN:],
        )
        if not now:
            return
        tunnel.wake(now)
        loop.call_soon(self.wake_peers, loop, tunnel)

    # -- the end -----------------------------------------------------------------------------------

    def end(self) -> None:
        """Have nothing kept any longer: there will be no next."""
        # What a service manager keeps for us would keep the interface.
        for name in descriptors.STORED:
            self._manager.forget(name)

    def hand_over(
        self,
        tun: SystemTun,
        socket_file: SocketFile | None,
        recorder: Recorder,
        janitor: Janitor | None,
    ) -> list[tuple[str, int]]:
        """Return copies of what the next program shall have; the originals are about to close.

        Raises OSError, and then nothing has changed.
        """
        state = self._state or StateFile.create()
        named = [(descriptors.STATE, state.fileno())]
        try:
            for fd in _queues(tun):
                named.append((descriptors.TUN, os.dup(fd)))  # noqa: PERF401 - to close what there is
            if socket_file is not None:
                name = descriptors.UAPI_OWN if socket_file.owns_file else descriptors.UAPI
                named.append((name, os.dup(socket_file.sock.fileno())))
            recorder.finish(state, time.time_ns())  # no change is taken from here on
        except OSError:
            for _, fd in named if state is not self._state else named[1:]:
                os.close(fd)
            raise
        if socket_file is not None:
            socket_file.owns_file = False  # the file stays
        if janitor is not None:
            named.append((descriptors.JANITOR, janitor.release()))
        return named


def _queues(tun: SystemTun) -> list[int]:
    fds: tuple[int, ...] = getattr(tun, "queue_fds", ())
    return list(fds) or [tun.fileno()]
