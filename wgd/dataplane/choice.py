"""Which engine moves the packets: what was asked for, what there is, and one line in the log.

The choice comes before the TUN is opened: for the native engine it is made with virtio-net headers
and, for several workers, several queues (see `wgd.tun.linux`), which nobody else can read.

Imports no engine before one is chosen: `wgd --help` shall not wait for a crypto library.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from wgd.clock import Clock
from wgd.errors import WgdError
from wgd.extension import Obstacle, find_extension

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


@runtime_checkable
class SegmentingTun(Protocol):
    """A TUN device that tells which packets of many segments the kernel hands over."""

    @property
    def segmentation(self) -> Sequence[str]:
        """Those switched on when it was made: "tun_tso" (TCP), "tun_uso" (UDP), both or none."""


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
        return _portable("it was asked for", offload=options.offload)
    obstacle = _why_not_native()
    if obstacle is None:
        return _native(Choice(is_native=True, workers=options.workers, offload=options.offload))
    if options.name is DataPlaneName.NATIVE:
        raise WgdError(f"--dataplane native: {obstacle.reason}: {obstacle.cure}")
    return _portable(
        obstacle.reason, obstacle.cure if obstacle.is_broken else None, offload=options.offload
    )


def choose_for(tun: "Tun") -> Choice:
    """Choose the engine for a TUN that somebody has made already, and log it.

    That is the portable one unless only the native one understands this TUN. Raises WgdError if
    that cannot be had.
    """
    if not (isinstance(tun, QueuedTun) and tun.needs_native):
        return _portable("the TUN is its caller's")
    obstacle = _why_not_native()
    if obstacle is not None:
        raise WgdError(
            f"a TUN with offloads or several queues needs the native data plane, but "
            f"{obstacle.reason}: {obstacle.cure}"
        )
    return _native(Choice(is_native=True, workers=len(tun.queue_fds)))


def _native(choice: Choice) -> Choice:
    logger.info(
        "event=dataplane name=native workers=%d offload=%s",
        choice.workers,
        "on" if choice.offload else "off",
    )
    return choice


def _portable(reason: str, cure: str | None = None, *, offload: bool = True) -> Choice:
    if cure is None:
        logger.info("event=dataplane name=portable reason=%r", reason)
    else:
        logger.warning("event=dataplane name=portable reason=%r cure=%r", reason, cure)
    return Choice(is_native=False, offload=offload)


def _why_not_native() -> Obstacle | None:
    """Return what keeps us from using the native engine, or None if nothing does."""
    found = find_extension()
    return found if isinstance(found, Obstacle) else None
