"""A machine under real systemd, in namespaces of its own: as process 1, on a copy-on-write root.

Only what the units of the test need is there: the directories of systemd's own units are empty but
for a few targets. It is in the network namespace it is given, which the test can join to others.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.service.reachable import needed
from tests.testbed import Namespace, wait_until
from tests.testbed.namespaces import run, unique_name

SYSTEMD = Path("/usr/lib/systemd/systemd")
UNITS = Path(__file__).parents[2] / "packaging/systemd"
_TARGETS = (
    *("sysinit", "basic", "sockets", "multi-user", "network-online", "nss-lookup", "shutdown"),
    *("umount", "final", "network", "timers", "paths", "slices", "local-fs"),
)
# What Python is made of goes here, out of reach of ProtectHome=.
_LIBRARY = "/opt/wgd-test"


def _cgroups() -> Path | None:
    """Return where control groups of version 2 are."""
    for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (path / "cgroup.procs").exists() and os.access(path, os.W_OK):
            return path
    return None


def require_systemd() -> None:
    """Skip the test where systemd cannot be process 1 of a namespace; fail in CI."""
    reason = None
    if not SYSTEMD.exists():
        reason = f"needs {SYSTEMD}"
    elif _cgroups() is None:
        reason = "needs control groups (version 2) that can be written to"
    elif any(shutil.which(tool) is None for tool in ("unshare", "nsenter", "systemctl")):
        reason = "needs unshare, nsenter and systemctl"
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI this must run, but it {reason}", pytrace=False)
    pytest.skip(reason)


class Machine:
    """Booted when made; a context manager."""

    def __init__(self, namespace: Namespace) -> None:
        cgroups = _cgroups()
        assert cgroups is not None
        self._cgroup = cgroups / unique_name("wgdtest")
        self._cgroup.mkdir()
        self._directory = tempfile.TemporaryDirectory(prefix="wgd-machine-")
        self._log = Path(self._directory.name) / "log"
        script = Path(self._directory.name) / "boot"
        script.write_text(_boot_script())
        join = f'echo $$ > {self._cgroup}/cgroup.procs && exec "$@"'
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # Into the group first: `ip netns exec` hides /sys/fs/cgroup.
                [
                    *("sh", "-c", join, "sh"),
                    *namespace.command("unshare", "--fork", "--pid", "--kill-child", "--mount"),
                    *("--uts", "--ipc", "--cgroup", "bash", "-e", script),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._pid = wait_until(self._find, 20, what="systemd")
            wait_until(lambda: self.systemctl("is-active", "booted.target"), 30, what="its boot")
        except BaseException:
            sys.stdout.write(self.log)
            self.close()
            raise

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_exception: object) -> None:
        sys.stdout.write(self.log)  # pytest shows it when the test fails
        for look in ("cat /run/wgd.log", "systemctl list-jobs", "systemctl status 'wgd@*'"):
            with contextlib.suppress(Exception):
                sys.stdout.write(self.run(*shlex.split(look), check=False).stdout)
        self.close()

    @property
    def log(self) -> str:
        """What systemd said."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """Turn it off."""
        self._process.kill()  # and with it process 1, and with that all others
        self._process.wait()
        wait_until(self._remove_cgroups, 10, what="its end")
        self._directory.cleanup()

    def _remove_cgroups(self) -> bool:
        """Remove its control groups; False while there is still something in them."""
        try:
            for path, _, _ in os.walk(self._cgroup, topdown=False):
                Path(path).rmdir()
        except OSError:
            return False
        return not self._cgroup.exists()

    def _find(self) -> int | None:
        """Return process 1 as we see it."""
        assert self._process.poll() is None, self.log
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        for child in children.split():
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
        return None

    # -- using it ----------------------------------------------------------------------------------

    def run(
        self, *argv: str, check: bool = True, stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the machine."""
        enter = ("nsenter", "-t", str(self._pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")
        return run(*enter, *argv, check=check, stdin=stdin, timeout_seconds=60)

    def systemctl(self, *argv: str) -> bool:
        """Run systemctl; whether it succeeded."""
        return self.run("systemctl", *argv, check=False).returncode == 0

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Write a file, with mode 0600."""
        self.run("sh", "-c", f"umask 077; mkdir -p $(dirname {path}); cat > {path}", stdin=text)

    def install(self, **settings: str) -> None:
        """Install the units and the user, as the package would, and wgd; with changed settings."""
        for unit in UNITS.glob("wgd@.*"):
            self.write(f"/etc/systemd/system/{unit.name}", unit.read_text())
        self.write("/run/sysusers.conf", (UNITS / "wgd.sysusers.conf").read_text())
        self.run("systemd-sysusers", "/run/sysusers.conf")
        lines = {"StandardOutput": "append:/run/wgd.log", "StandardError": "append:/run/wgd.log"}
        self.write(
            "/etc/systemd/system/wgd@.service.d/test.conf",
            "[Service]\n"
            f"Environment=LD_LIBRARY_PATH={_LIBRARY}/python/lib\n"
            "Environment=LOG_LEVEL=verbose\n" + _lines({**lines, **settings}),
        )
        self.write("/usr/local/bin/wgd", _PROGRAM)
        self.run("chmod", "755", "/usr/local/bin/wgd")
        self.run("systemctl", "daemon-reload")


def _lines(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _site() -> list[str]:
    """Return the search path of Python, as the machine has it."""
    places = {str(path): f"{_LIBRARY}/{n}" for n, path in enumerate(needed())}
    found = []
    for entry in [*sys.path, str(UNITS.parents[1])]:
        for outside, inside in places.items():
            if entry == outside or entry.startswith(f"{outside}/"):
                found.append(inside + entry.removeprefix(outside))
                break
    return found


_PROGRAM = f"""#!{_LIBRARY}/python/bin/python{sys.version_info.major}.{sys.version_info.minor}
import sys
sys.path[:0] = {_site()!r}
from wgd.cli import main
main()
"""


def _boot_script() -> str:
    binds = "\n".join(
        f"mkdir -p .{_LIBRARY}/{n}; mount --bind {shlex.quote(str(path))} .{_LIBRARY}/{n}"
        for n, path in enumerate(needed())
    )
    base = Path(sys.base_prefix).resolve()
    targets = "\n".join(
        f"printf '[Unit]\\nDefaultDependencies=no\\n' > ./etc/systemd/system/{name}.target"
        for name in (*_TARGETS, "booted")
    )
    return f"""
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
{binds}
mkdir -p .{_LIBRARY}/python
mount --bind {shlex.quote(str(base))} .{_LIBRARY}/python
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in run tmp dev etc/systemd/system usr/lib/systemd/system usr/lib/systemd/system-generators
do
    mount -t tmpfs -o mode=755 tmpfs $place
done
mkdir dev/net dev/pts dev/shm
for device in null zero full random urandom tty
do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mknod -m 666 dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
{targets}
rm -rf etc/wireguard
pivot_root . mnt
cd /
mount --make-rshared /
exec env -i container=wgd-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \\
    {SYSTEMD} --system --unit=booted.target --log-target=console --log-level=info \\
    --show-status=no --default-standard-output=null
"""
