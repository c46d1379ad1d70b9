"""What was done to the system, written down before it is done, so that it can always be undone.

One file an interface, in /run: it does not outlive the system. It is replaced whole at each step,
so whoever is killed at any moment leaves a true one. It holds no keys.

Root does what a journal says, so only root's is believed, in a directory that is root's alone. A
systemd unit's daemon, which never was root, has its own directory (see `plan`). A daemon that
has become another user can read its own, and say in a file beside it that all was undone.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Final, get_args, get_origin, get_type_hints

from wgd.quick.config import Hooks
from wgd.quick.dns import Dns
from wgd.quick.errors import QuickError
from wgd.quick.firewall import Firewall
from wgd.quick.launch import Daemon
from wgd.quick.steps import Addresses, LinkUp, Mark, Routes, Rules, Step, Sysctl

logger = logging.getLogger(__name__)

DIRECTORY: Final = Path("/run/wgd")

_VERSION: Final = 1
_KINDS: Final[dict[str, type[Any]]] = {
    kind.kind: kind
    for kind in (Addresses, Daemon, Dns, Firewall, LinkUp, Mark, Routes, Rules, Sysctl)
}


@dataclass(slots=True)
class Record:
    """The content of a journal.

    `namespace` is the inode of the network namespace; `by_daemon` says that a `wgd --config` has
    made it, which also undoes it. `began` names the hooks that were begun.
    """

    interface: str
    namespace: int = 0
    by_daemon: bool = False
    hooks: Hooks = field(default_factory=Hooks)
    began: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


def own_namespace() -> int:
    """Return the inode of our network namespace."""
    return Path("/proc/self/ns/net").stat().st_ino


class Journal:
    """The journal of one interface in `directory`; with None it is in memory only."""

    def __init__(self, record: Record, directory: Path | None) -> None:
        self.record = record
        self._directory = directory

    @classmethod
    def find(cls, interface: str, directory: Path | None) -> "Journal | None":
        """Return the journal that is there, None if there is none. Raises QuickError."""
        if directory is None:
            return None
        path = _path(directory, interface)
        try:
            _check_directory(directory)
            # Never waits, as a FIFO would have it.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(path, flags), encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise QuickError(f"{path} is not a file: remove it")
                owner = status.st_uid
                text = file.read()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise QuickError(f"cannot read {path}: {error}") from None
        if _is_done(directory, interface):
            return None
        if owner not in (0, os.geteuid()):
            raise QuickError(f"{path} belongs to user {owner}, not to root: remove it")
        try:
            return cls(_from_json(json.loads(text), interface), directory)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise QuickError(
                f"{path} is no journal of this wgd ({ascii(str(error))[1:-1]}): take {interface} "
                "down by hand, then remove the file"
            ) from None

    @staticmethod
    def is_readable(interface: str, directory: Path) -> bool:
        """Whether there is a journal that we may read."""
        return os.access(_path(directory, interface), os.R_OK)

    def step(self, step: Step) -> None:
        """Write down a step that is to be done next."""
        self.record.steps.append(step)
        self.write()

    def began(self, hook: str) -> None:
        """Write down that hooks are to be run next."""
        self.record.began.append(hook)
        self.write()

    def write(self) -> None:
        """Put the file in place, whole. Raises QuickError and OSError."""
        if self._directory is None:
            return
        path = _path(self._directory, self.record.interface)
        temporary = _temporary(self._directory, self.record.interface)
        text = json.dumps(_as_json(self.record))
        try:
            make_directory(self._directory)
            temporary.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
                file.write(text)
            _done(self._directory, self.record.interface).unlink(missing_ok=True)
            temporary.replace(path)
        except PermissionError:
            if not path.exists():
                raise
            # Root wrote it, before we became another user: all the steps are in it.

    def remove(self) -> None:
        """Remove the file, or say that it is done with where that is not allowed."""
        if self._directory is None:
            return
        interface = self.record.interface
        path, done = _path(self._directory, interface), _done(self._directory, interface)
        try:
            _temporary(self._directory, interface).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            done.unlink(missing_ok=True)
        except PermissionError:
            done.write_text("done\n")

    def hand_over(self, uid: int, gid: int) -> None:
        """Let a user that we are about to become read the journal, and say that it is done with.

        Raises OSError.
        """
        path = None if self._directory is None else _path(self._directory, self.record.interface)
        if self._directory is None or path is None or os.geteuid() != 0 or not path.exists():
            return
        os.chown(path, 0, gid)
        path.chmod(0o640)
        done = _done(self._directory, self.record.interface)
        done.touch(0o600)
        os.chown(done, uid, gid)

    def others(self) -> Iterator["Journal"]:
        """Yield the journals of the other interfaces in the same network namespace.

        Raises QuickError for one that cannot be read.
        """
        paths = sorted(self._directory.glob("*.json")) if self._directory is not None else []
        for path in paths:
            if path.stem != self.record.interface:
                other = Journal.find(path.stem, self._directory)
                if other is not None and other.record.namespace == self.record.namespace:
                    yield other


@contextlib.contextmanager
def lock(interface: str, directory: Path) -> Iterator[None]:
    """Be the only one that works on an interface. Raises QuickError if somebody else does."""
    path = directory / f"{interface}.lock"
    try:
        make_directory(directory)
        descriptor = _lock(path)
    except BlockingIOError:
        raise QuickError(
            f"somebody else is bringing {interface} up or down: wait until that is done"
        ) from None
    except OSError as error:
        raise QuickError(
            f"cannot write in {directory}: {error.strerror}; run this as root"
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make the directory of the journals if there is none, whatever the umask.

    Raises OSError; and QuickError, as root, for one in which others could have us write and believe
    what they like.
    """
    try:
        directory.mkdir(mode=0o755)
    except FileExistsError:
        pass
    else:
        directory.chmod(0o755)
    _check_directory(directory)


def _check_directory(directory: Path) -> None:
    """Raise QuickError, as root, for a directory that is not root's alone."""
    if os.geteuid() != 0:
        return
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise QuickError(f"{directory} is not a directory: remove it")
    if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise QuickError(
            f"{directory} belongs to user {status.st_uid} and has mode {mode:04o}, and must be "
            f"root's alone: see who has files in it, then `rm -r {directory}`"
        )


def _lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before may have removed the file in between: then it locks nothing.
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def give_back_sysctl(step: Sysctl, journal: Journal) -> bool:
    """Leave a sysctl that another interface needs, too, and let that one put it back.

    Returns whether there is such an interface, or may be.
    """
    try:
        for other in journal.others():
            for n, theirs in enumerate(other.record.steps):
                if isinstance(theirs, Sysctl) and theirs.name == step.name:
                    if theirs.before == theirs.value:
                        other.record.steps[n] = dataclasses.replace(theirs, before=step.before)
                        other.write()
                    return True
    except QuickError as error:
        logger.info("event=sysctl_left name=%s reason=%r", step.name, str(error))
        return True
    return False


def _path(directory: Path, interface: str) -> Path:
    return directory / f"{interface}.json"


def _done(directory: Path, interface: str) -> Path:
    return directory / f"{interface}.done"


def _is_done(directory: Path, interface: str) -> bool:
    try:
        return _done(directory, interface).stat().st_size > 0
    except FileNotFoundError:
        return False


def _temporary(directory: Path, interface: str) -> Path:
    return directory / f".{interface}.json.new"


def _as_json(record: Record) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "interface": record.interface,
        "namespace": record.namespace,
        "by_daemon": record.by_daemon,
        "hooks": dataclasses.asdict(record.hooks),
        "began": record.began,
        "steps": [{"kind": step.kind, **dataclasses.asdict(step)} for step in record.steps],  # type: ignore[call-overload]
    }


def _from_json(document: dict[str, Any], interface: str) -> Record:
    """Return what `_as_json` was given. Raises an error of some kind for anything else."""
    if document["version"] != _VERSION:
        raise ValueError(f"version {document['version']!a:.80}")
    record = Record(
        interface=document["interface"],
        namespace=document["namespace"],
        by_daemon=document["by_daemon"],
        hooks=Hooks(**_frozen(document["hooks"])),
        began=document["began"],
        steps=[_step(step) for step in document["steps"]],
    )
    _check(Record, record, "steps")
    _check(Hooks, record.hooks)
    if record.interface != interface:
        raise ValueError(f"it is of {record.interface!a:.80}")
    return record


def _step(document: dict[str, Any]) -> Step:
    fields = _frozen({name: value for name, value in document.items() if name != "kind"})
    step: Step = _KINDS[document["kind"]](**fields)
    _check(type(step), step)
    return step


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _frozen(each) for name, each in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _check(kind: type[Any], values: object, *but: str) -> None:
    """Raise TypeError unless each field of a dataclass has a value of its type."""
    for name, annotation in get_type_hints(kind).items():
        if get_origin(annotation) is not ClassVar and name not in but:
            value = getattr(values, name)
            if not _is_of(annotation, value):
                raise TypeError(f"{name} cannot be {value!a:.80}")


def _is_of(annotation: Any, value: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return any(_is_of(each, value) for each in arguments)
    if origin is list or (origin is tuple and arguments[1:] == (Ellipsis,)):
        return type(value) is origin and all(_is_of(arguments[0], each) for each in value)
    if origin is tuple:
        is_long_enough = type(value) is tuple and len(value) == len(arguments)
        return is_long_enough and all(map(_is_of, arguments, value))
    return type(value) is (NoneType if annotation is None else annotation)
