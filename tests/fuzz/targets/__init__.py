"""Every target. A module here holds those of one kind."""

from typing import Final

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    config_files,
    handshakes,
    kept_files,
    manners,
    packets,
    system,
    uapi,
    watching,
)

TARGETS: Final[tuple[Target, ...]] = (
    *handshakes.TARGETS,
    *packets.TARGETS,
    *manners.TARGETS,
    *uapi.TARGETS,
    *config_files.TARGETS,
    *kept_files.TARGETS,
    *system.TARGETS,
    *watching.TARGETS,
)
