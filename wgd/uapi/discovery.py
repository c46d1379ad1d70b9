"""Find the sockets of running interfaces, in every place where one may be.

In steps: 1 list the places; 2 read each directory for `*.sock`; 3 leave out what was found before,
under the same name or as the same file, for the first place wins; 4 knock, and leave out what
nobody answers. What is left out becomes a note. Nothing is ever deleted, and nothing raises.
"""

import errno
import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wgd.errors import WgdError
from wgd.interface_name import check_interface_name
from wgd.uapi.paths import connect_address
from wgd.uapi.socket_policy import (
    DEFAULT_BUNDLE_IDS,
    SYSTEM_DIRECTORY,
    container_in,
    container_of,
    home_directory,
)

HomeOf = Callable[[str], Path | None]
"""The home of a user by name; None if there is no such user."""

_SUFFIX: Final = ".sock"

_CURES: Final = {
    # The two are told apart as macOS does: a sandbox or a missing consent is EPERM.
    errno.EPERM: "since macOS 14 a program needs consent to look into another one's container: "
    "allow it for this terminal in System Settings, Privacy & Security, or give it Full Disk "
    "Access",
    errno.EACCES: "run as its owner or as root",
}


@dataclass(frozen=True, slots=True)
class FoundSocket:
    """A socket that somebody listens on, or that may only be reached by another user."""

    name: str
    path: Path
    place: Path


@dataclass(frozen=True, slots=True)
class Note:
    """What was left out, in one sentence: why, and the cure where there is one."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Survey:
    """Where it was looked, in that order, missing directories included; what was found; the rest.

    A path may hold what a terminal should not be sent; a `name` never does.
    """

    places: tuple[Path, ...]
    sockets: tuple[FoundSocket, ...]
    notes: tuple[Note, ...]


def home_of(user: str) -> Path | None:
    """Return the home of `user` from the system's user database; None if it has none."""
    try:
        return Path(pwd.getpwnam(user).pw_dir)
    except (KeyError, ValueError):
        return None


def search_places(
    *,
    directory: Path | None,
    bundle_ids: Sequence[str],
    environment: Mapping[str, str],
    home_of: HomeOf = home_of,
    system_directory: Path = SYSTEM_DIRECTORY,
) -> tuple[tuple[Path, ...], tuple[Note, ...]]:
    """Return the directories to look into, each once, and notes on those that cannot be told.

    They are: `directory`, the system's, then the containers of HOME and of SUDO_USER's home.
    """
    notes: list[Note] = []
    places: list[Path] = []
    if directory is not None:
        places.append(directory)
    places.append(system_directory)

    for home in _homes(bundle_ids, environment, home_of, notes):
        for bundle_id in bundle_ids:
            try:
                places.append(container_in(home, bundle_id))
            except WgdError as error:
                notes.append(Note(home, str(error)))
    return tuple(dict.fromkeys(places)), tuple(dict.fromkeys(notes))


def survey(
    *,
    directory: Path | None = None,
    bundle_ids: Sequence[str] = DEFAULT_BUNDLE_IDS,
    environment: Mapping[str, str] = os.environ,
    home_of: HomeOf = home_of,
    system_directory: Path = SYSTEM_DIRECTORY,
) -> Survey:
    """Look for sockets everywhere; never raises."""
    places, notes = search_places(
        directory=directory,
        bundle_ids=bundle_ids,
        environment=environment,
        home_of=home_of,
        system_directory=system_directory,
    )
    search = _Search(list(notes))
    for place in places:
        search.look_into(place)
    return Survey(places, tuple(search.sockets.values()), tuple(search.notes))


def _homes(
    bundle_ids: Sequence[str], environment: Mapping[str, str], home_of: HomeOf, notes: list[Note]
) -> Iterator[Path]:
    home = home_directory(environment)
    if home is None:
        found = repr(environment["HOME"]) if "HOME" in environment else "not set"
        reason = f"HOME is {found}, so its containers were left out: set it to a directory"
        notes.append(Note(Path("~"), reason))
    else:
        # Inside a container it is that container: the user's own home is around it.
        container = container_of(home, bundle_ids)
        yield home if container is None else container.parents[3]

    if user := environment.get("SUDO_USER"):
        # sudo may have set HOME to root's.
        home = home_of(user)
        if home is None:
            reason = f"SUDO_USER {user!r} has no home, so its containers were left out: unset it"
            notes.append(Note(Path("~"), reason))
        else:
            yield home


class _Search:
    """What was found so far, over all places."""

    def __init__(self, notes: list[Note]) -> None:
        self.sockets: dict[str, FoundSocket] = {}
        self.notes = notes
        self._seen: dict[tuple[int, int], Path] = {}

    def look_into(self, place: Path) -> None:
        try:
            directory = place.absolute()
            if first := self._first_seen(directory, directory.stat()):
                self._note(place, f"is the directory {first} by another name")
                return
            paths = sorted(path for path in directory.iterdir() if path.name.endswith(_SUFFIX))
        except OSError as error:
            # A place that is not there is the usual case; a link to nowhere is not.
            if error.errno != errno.ENOENT or _is_link(place):
                self._note(place, f"cannot be read: {_text(error)}")
            return
        except ValueError:  # a NUL, or what cannot be encoded
            self._note(place, "is not a path: give another")
            return
        for path in paths:
            try:
                reason = self._consider(path, place)
            except WgdError as error:
                reason = str(error)
            except OSError as error:
                reason = f"cannot be looked at: {_text(error)}"
            if reason is not None:
                self._note(path, reason)

    def _consider(self, path: Path, place: Path) -> str | None:
        """Add one entry, or return why not; raises WgdError and OSError for the same."""
        name = path.name.removesuffix(_SUFFIX)
        try:
            status = path.stat()
        except FileNotFoundError:
            return "is a link to nothing: remove it" if _is_link(path) else None  # just gone
        if not stat.S_ISSOCK(status.st_mode):
            return "is not a socket: move it away"
        if not name.isprintable():
            return "has a name that no interface has: move it away"
        check_interface_name(name)
        if first := self._first_seen(path, status):
            return f"is the socket {first} by another name"
        if found := self.sockets.get(name):
            return f"has the name of {found.path}, which is used: stop one of the two"
        reason = _knock(path)
        if reason is None:
            self.sockets[name] = FoundSocket(name, path, place)
        return reason

    def _first_seen(self, path: Path, status: os.stat_result) -> Path | None:
        """Remember a file; return where it was seen before, if it was."""
        first = self._seen.setdefault((status.st_dev, status.st_ino), path)
        return None if first is path else first

    def _note(self, path: Path, reason: str) -> None:
        self.notes.append(Note(path, reason))


def _knock(path: Path) -> str | None:
    """Connect and hang up; return why this socket is of no use, or None.

    Servers that take one request per connection do not mind one without any.
    """
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        connect_address(path) as address,
    ):
        probe.setblocking(False)  # Linux would wait while a backlog is full
        number = probe.connect_ex(address)
    match number:
        case 0 | errno.EAGAIN | errno.EINPROGRESS:  # the last two: alive, and busy
            return None
        case errno.EACCES | errno.EPERM:
            return None  # There is a device; who asks it is told that he may not.
        case errno.ECONNREFUSED:
            # Elsewhere than on Linux a full backlog looks like this too, so nobody deletes it.
            return "refuses connections: if its program has ended, remove it"
        case errno.EPROTOTYPE:
            return "is not a stream socket: move it away"
        case _:
            return f"cannot be connected to: {os.strerror(number)}"


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False


def _text(error: OSError) -> str:
    cure = _CURES.get(error.errno or 0)
    return f"{error.strerror or error}" + (f": {cure}" if cure else "")
