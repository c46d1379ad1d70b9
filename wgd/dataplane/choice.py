"""Which engine moves the packets: what was asked for, what there is, and one line in the log.

The choice comes before the TUN is opened: for the native engine it is made with virtio-net headers
and, for several workers, several queues (see `wgd.tun.linux`), which nobody else can read.

Imports no engine before one is chosen: `wgd --help` shall not wait for a crypto library.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from wgd.clock import Clock
from wgd.errors import WgdError

if TYPE_CHECKING:
    from wgd.dataplane.interface import Engine, Tun

logger = logging.getLogger(__name__)

MAX_WORKERS: Final = 16
"""More than this many queues of one TUN share too few flows to gain anything."""


class DataPlaneName(StrEnum):
    """What a user may ask for; `auto` is native wherever that can be had."""

    AUTO = "auto"
    NATIVE = "native"
    PORTABLE = "portable"


@dataclass(frozen=True, slots=True)
class DataPlaneOptions:
    """What is asked of the data plane.

    `workers` (1 to `MAX_WORKERS`) is how many packets move at once in each direction; `offload`
    lets the kernel hand over and take many packets as one.
    """

    name: DataPlaneName = DataPlaneName.AUTO
    workers: int = 1
    offload: bool = True


@runtime_checkable
class QueuedTun(Protocol):
    """A TUN device by its descriptors: what the native engine needs of it to run."""

    @property
    def queue_fds(self) -> Sequence[int]:
        """One descriptor per queue; they stay the owner's."""

    @property
    def has_packet_information(self) -> bool:
        """Whether 4 bytes of packet information come before all else."""

    @property
    def virtio_header_size(self) -> int:
        """How many bytes of virtio-net header come before each packet, 0 for none."""

    @property
    def needs_native(self) -> bool:
        """Whether no other engine understands what is read from it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that was chosen, and how it will be used."""

    is_native: bool
    workers: int = 1
    offload: bool = True

    def make_engine(self, tun: "Tun", clock: Clock) -> "Engine":
        """Return a new engine on this TUN."""
        if self.is_native:
            from wgd.dataplane.native import NativeDataPlane

            return NativeDataPlane(tun, clock)
        from wgd.dataplane.portable import PortableDataPlane

        return PortableDataPlane(tun, clock)


def choose(options: DataPlaneOptions) -> Choice:
    """Choose the engine for a TUN device that has yet to be opened, and log it.

    Raises WgdError when what was asked for cannot be had.
    """
    if options.name is DataPlaneName.PORTABLE:
        if options.workers > 1:
            raise WgdError(
                f"--workers {options.workers} needs the native data plane: "
                "give --dataplane native, or leave --workers out"
            )
        return _chosen(Choice(is_native=False, offload=options.offload), "it was asked for")
    obstacle = _why_not_native()
    if obstacle is None:
        return _chosen(
            Choice(is_native=True, workers=options.workers, offload=options.offload), None
        )
    reason, cure = obstacle
    if options.name is DataPlaneName.NATIVE:
        raise WgdError(f"--dataplane native: {reason}: {cure}")
    return _chosen(Choice(is_native=False, offload=options.offload), reason)


def choose_for(tun: "Tun") -> Choice:
    """Choose the engine for a TUN that somebody has made already, and log it.

    That is the portable one unless only the native one understands this TUN.
    """
    if isinstance(tun, QueuedTun) and tun.needs_native:
        return _chosen(Choice(is_native=True, workers=len(tun.queue_fds)), None)
    return _chosen(Choice(is_native=False), "the TUN is its caller's")


def _chosen(choice: Choice, reason: str | None) -> Choice:
    if choice.is_native:
        logger.info(
            "event=dataplane name=native workers=%d offload=%s",
            choice.workers,
            "on" if choice.offload else "off",
        )
    else:
        logger.info("event=dataplane name=portable reason=%r", reason)
    return choice


def _why_not_native() -> tuple[str, str] | None:
    """Return why the native engine cannot be used and what helps, or None if it can."""
    if sys.platform != "linux":
        return "it runs on Linux only", "use --dataplane portable"
    try:
        import wgd.dataplane.native  # noqa: F401 - whether it can be imported is the question
    except ModuleNotFoundError as error:
        if error.name != "wgd_native":
            raise
        return "wgd-native is not installed", "pip install ./native"
    except ImportError as error:
        return f"wgd-native cannot be loaded ({error})", "pip install --force-reinstall ./native"
    return None
