"""Where the socket of an interface is: one policy for the daemon, for embedded tunnels and clients.

A process in the macOS sandbox may make a socket in its own container only; its HOME is that
container's `Data` directory, and the socket is put there. Nothing here looks at the system: the
environment and the home are arguments.
"""

import enum
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wgd.errors import WgdError

SYSTEM_DIRECTORY: Final = Path("/var/run/wireguard")
"""Where `wg` and every other client look."""

DEFAULT_BUNDLE_IDS: Final = ("com.wireguard.macos.network-extension",)
"""The network extensions whose containers are known: the one of the WireGuard app."""

_CONTAINERS: Final = ("Library", "Containers")
_DATA: Final = "Data"


class SocketPolicy(enum.Enum):
    """What `--uapi-policy` says."""

    AUTO = "auto"
    """The explicit directory, else the container this process is in, else the system's."""
    SYSTEM = "system"
    SANDBOX = "sandbox"
    OFF = "off"
    """No socket at all."""


@dataclass(frozen=True, slots=True)
class SocketPlace:
    """A directory for the socket."""

    directory: Path
    is_sandbox: bool
    """Inside a container: with a `.name` file, and no socket is no reason to end the tunnel."""


def home_directory(environment: Mapping[str, str]) -> Path | None:
    """Return HOME; None if it is not set, or is nothing that a directory can be found by."""
    home = environment.get("HOME", "")
    return Path(home) if home.startswith("/") and "\0" not in home else None


def container_of(path: Path | None, bundle_ids: Sequence[str]) -> Path | None:
    """Return the `Data` directory of the container that `path` is in, at any depth, or is.

    Whole names count, not substrings. Of containers within each other it is the innermost.
    """
    if path is None:
        return None
    parts = Path(posixpath.normpath(path)).parts
    for end in range(len(parts), 3, -1):
        *_, library, containers, bundle_id, data = parts[:end]
        if (library, containers, data) == (*_CONTAINERS, _DATA) and bundle_id in bundle_ids:
            return Path(*parts[:end])
    return None


def container_in(home: Path, bundle_id: str) -> Path:
    """Return the `Data` directory of the container that bundle has, or would have, in `home`.

    Raises WgdError for what cannot be a bundle id.
    """
    check_bundle_id(bundle_id)
    return home.joinpath(*_CONTAINERS, bundle_id, _DATA)


def check_bundle_id(bundle_id: str) -> None:
    """Raise WgdError unless `bundle_id` could be the name of a container."""
    if not bundle_id.strip(".") or "/" in bundle_id or not bundle_id.isprintable():
        raise WgdError(
            f"{bundle_id!r} is not a bundle id: give one such as {DEFAULT_BUNDLE_IDS[0]}"
        )


def choose_place(
    policy: SocketPolicy,
    *,
    directory: Path | None,
    bundle_ids: Sequence[str],
    home: Path | None,
) -> SocketPlace | None:
    """Return where the socket goes; None for nowhere.

    `directory` is the explicit one. Raises WgdError: a policy that contradicts it, `sandbox`
    outside every container, a bad bundle id.
    """
    for bundle_id in bundle_ids:
        check_bundle_id(bundle_id)
    if policy is SocketPolicy.OFF:
        return None
    if directory is not None:
        if policy is not SocketPolicy.AUTO:
            raise WgdError(
                f"the socket policy {policy.value} and the directory {directory} contradict each "
                "other: leave one of them out"
            )
        return SocketPlace(directory, container_of(directory, bundle_ids) is not None)
    container = container_of(home, bundle_ids)
    if container is not None and policy is not SocketPolicy.SYSTEM:
        return SocketPlace(container, is_sandbox=True)
    if policy is SocketPolicy.SANDBOX:
        raise WgdError(_not_in_a_container(bundle_ids, home))
    return SocketPlace(SYSTEM_DIRECTORY, is_sandbox=False)


def _not_in_a_container(bundle_ids: Sequence[str], home: Path | None) -> str:
    names = " or ".join(bundle_ids) or "ID"
    found = "HOME is not set to a directory" if home is None else f"HOME is {home}"
    return (
        f"the socket policy sandbox looks for a HOME inside …/Library/Containers/{names}/Data, but "
        f"{found}: give --sandbox-bundle-id, or another --uapi-policy"
    )
