"""Fewer privileges: nothing of the process in a dump or on a disk, and no more power than it needs.

    harden      at the very start: no core dumps, nobody may trace us, no exec gives us more than
                we have, memory never goes to swap
    drop_to     when all is open that needs root: become another user, and keep three capabilities

On Linux all of it but user and group belongs to a thread. Threads made later inherit it, so
`harden` comes before there are any. `drop_to` may find some (the log's writer, the native
engine's): libc changes user and groups of all of them, and with the user they lose every
capability. Only the calling thread keeps some, and passes them on to threads made from then on.

macOS has no capabilities: there `drop_to` changes the user, and nothing is kept.
"""

import logging
import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from wgd.errors import WgdError
from wgd.service.preload import import_rest

if sys.platform == "linux":
    from wgd.service import linux_privileges

logger = logging.getLogger(__name__)

_YES: Final = "yes"
_ONLY_LINUX: Final = "no: only on Linux"
_NO_ID: Final = 2**32 - 1  # to the kernel: leave it as it is


class Hardening(NamedTuple):
    """What `harden` could do: each "yes", or "no: " and why."""

    core_dumps_off: str
    untraceable: str
    no_new_privileges: str
    memory_locked: str

    def log(self) -> None:
        """Say it in one line of the log."""
        logger.info(
            "event=hardened core_dumps_off=%r untraceable=%r no_new_privileges=%r memory_locked=%r",
            *self,
        )


def harden() -> Hardening:
    """Protect this process's memory, and let no exec give it or its children more privileges.

    Call it before there are other threads, and again after an exec: some of it does not survive
    that. Never raises. Programs that the daemon starts inherit it: no set-user-id bit gives them
    anything, so `sudo` in a hook does not work once the daemon is not root.
    """
    if sys.platform == "linux":
        return Hardening(
            _attempt(_forbid_core_dumps),
            _attempt(linux_privileges.forbid_tracing),
            _attempt(linux_privileges.forbid_new_privileges),
            _lock_memory(),
        )
    return Hardening(_attempt(_forbid_core_dumps), _ONLY_LINUX, _ONLY_LINUX, _ONLY_LINUX)


def _attempt(function: Callable[[], None]) -> str:
    try:
        function()
    except (OSError, ValueError) as error:
        return f"no: {error}"
    return _YES


def _forbid_core_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if sys.platform == "linux":

    def _lock_memory() -> str:
        """Lock it if its size is without limit: under one, allocations would fail later."""
        limit, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
        except (OSError, ValueError):  # so it is for root without CAP_SYS_RESOURCE, too
            return f"no: RLIMIT_MEMLOCK is {limit} bytes, set it to infinity"
        return _attempt(linux_privileges.lock_memory)


# -- another user ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class User:
    """Whom to become: numbers as the kernel has them; `name` is what the user was called by."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def named(cls, name: str) -> "User":
        """Look up a user by name or number.

        A number that nobody has is taken as it is, with the group of the same number. Raises
        WgdError for an unknown name, a number out of range, and root.
        """
        import pwd

        is_number = name.isascii() and name.isdigit() and len(name) <= len(str(_NO_ID))
        number = int(name) if is_number else 0
        try:
            entry = pwd.getpwuid(number) if is_number else pwd.getpwnam(name)
        except (KeyError, ValueError, OverflowError):  # ValueError: a NUL, or no UTF-8
            if not is_number or number >= _NO_ID:
                raise WgdError(
                    f"user {name!r} is unknown: name one that exists, or make it (useradd --system)"
                ) from None
            return cls(name, number, number, (number,))
        if entry.pw_uid == 0:
            raise WgdError(f"user {name!r} is root, which gives nothing up: name another")
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        return cls(name, entry.pw_uid, entry.pw_gid, tuple(sorted(groups)))


def drop_to(user: User, *, imports: Sequence[str] = ()) -> None:
    """Become `user` for good with three capabilities of those we have, and verify that it is so.

    The three: `linux_privileges.KEPT`. They survive an exec, and no exec brings others back. Not to
    be root to begin with is no error: all other capabilities are given up then. First imports what
    the daemon needs later, and `imports`: modules that its options need.

    Call it from the thread that does what needs capabilities later. Raises WgdError when it cannot
    be done; some of it may have happened then, so do not go on.
    """
    is_root = os.geteuid() == 0
    import_rest(*imports)
    try:
        _drop(user, is_root=is_root)
    except OSError as error:
        raise WgdError(
            f"cannot become user {user.name!r} ({user.uid}): {error.strerror or error}; start as "
            "root with CAP_SETUID and CAP_SETGID, or as that user"
        ) from error
    if is_root or os.geteuid() == user.uid:
        logger.info("event=privileges_dropped user=%r capabilities=%s", user.name, _permitted())
    else:
        logger.warning(
            "event=user_not_changed user=%d wanted=%r reason=%r capabilities=%s",
            *(os.geteuid(), user.name, "only root can become another user", _permitted()),
        )


def _drop(user: User, *, is_root: bool) -> None:
    if sys.platform == "linux":
        if is_root:
            linux_privileges.become(user.uid, user.gid, user.groups)
        linux_privileges.give_up_rest()
        # A change of user resets this to what the system's administrator has chosen.
        linux_privileges.forbid_tracing()
        wrong = linux_privileges.threads_with_more(user.uid, user.gid, user.groups)
    else:
        if is_root:
            os.initgroups(user.name, user.gid)
            os.setgid(user.gid)
            os.setuid(user.uid)
        wrong = [] if (os.getuid(), os.getgid()) == (user.uid, user.gid) else ["the process"]
    if not is_root:
        return
    if not wrong and _can_be_root():
        wrong = ["setuid(0)"]
    if wrong:
        raise WgdError(
            f"still privileged after becoming user {user.name!r}: {', '.join(wrong)}; do not use "
            "--user on this system, and report this"
        )


def _can_be_root() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True


def _permitted() -> str:
    if sys.platform == "linux":
        return linux_privileges.permitted_in_words()
    return "none"
