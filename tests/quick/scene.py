"""A client where wgdctl and wg-quick are run, and a server behind which is everything else.

`Scene.state` is all that either of them may change, as text: whatever goes up and down again must
leave it as it was, byte for byte.
"""

import difflib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.testbed import Daemon, Namespace, Testbed, daemon_command, wait_until
from tests.testbed.bed import Keys
from wgd.quick.journal import DIRECTORY

SERVER_PORT: Final = 51_820
FAR_ADDRESSES: Final = ("203.0.113.1", "2001:db8:ffff::1")
"""Behind the server: only a default route leads there."""

FULL_TUNNEL: Final = "0.0.0.0/0, ::/0"
SOCKET_DIRECTORY: Final = Path("/var/run/wireguard")

_SHOWN: Final = {
    "addresses": "ip -d address",
    "rules": "ip -d rule",
    "rules6": "ip -6 -d rule",
    "routes": "ip -4 -d route show table all",
    "routes6": "ip -6 -d route show table all",
    "nft": "nft list ruleset",
}
_MARK: Final = "---"
_SRC_VALID_MARK: Final = "net/ipv4/conf/all/src_valid_mark"
_RESOLVCONF: Final = """\
#!/bin/sh
# Keeps what each interface has in a file, as resolvconf does.
case $1 in
-a) cat > "{directory}/$2" ;;
-d) rm -f "{directory}/$2" ;;
-l) cat "{directory}/$2" ;;
esac
"""


def assert_same(now: str, then: str) -> None:
    """Raise AssertionError with the lines that differ, unless two states are the same."""
    lines = difflib.unified_diff(
        then.splitlines(), now.splitlines(), "then", "now", lineterm="", n=0
    )
    assert now == then, "\n".join(lines)


@dataclass
class Scene:
    """Two namespaces, a server that waits for the client, and private programs for the client."""

    bed: Testbed
    client: Namespace
    client_keys: Keys
    server: Daemon
    server_keys: Keys
    programs: Path
    resolv: Path
    interfaces: list[str] = field(default_factory=list)

    @classmethod
    def build(cls, bed: Testbed) -> "Scene":
        """Make it all; the client has a default route through the server."""
        client, server = bed.namespace(), bed.namespace()
        for namespace in (client, server):
            namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")
        bed.link(client, server)
        for n, namespace in enumerate((client, server), 1):
            namespace.add_address("eth0", f"192.0.2.{n}/24")
            namespace.add_address("eth0", f"2001:db8::{n}/64")
        client.ip("route", "add", "default", "via", "192.0.2.2")
        client.ip("-6", "route", "add", "default", "via", "2001:db8::2")
        programs, resolv = bed.directory / "bin", bed.directory / "resolv"
        programs.mkdir()
        resolv.mkdir()
        scene = cls(bed, client, bed.keys(), bed.daemon(server), bed.keys(), programs, resolv)
        scene.program("resolvconf", _RESOLVCONF.format(directory=resolv))
        daemon = scene.server
        daemon.setconf(
            f"[Interface]\nPrivateKey = {scene.server_keys.private}\nListenPort = {SERVER_PORT}\n"
            f"[Peer]\nPublicKey = {scene.client_keys.public}\nAllowedIPs = 10.77.0.1, fd77::1\n"
        )
        for address in ("10.77.0.2/24", "fd77::2/64"):
            server.add_address(daemon.interface, address)
        daemon.up()
        for address in FAR_ADDRESSES:
            server.add_address("lo", f"{address}/{128 if ':' in address else 32}")
        wait_until(
            lambda: (
                "tentative" not in client.ip("address").stdout
                and client.ip("-6", "address", "show", "dev", "eth0", "scope", "link").stdout
            ),
            what="the link-local address of eth0",
        )
        return scene

    def interface(self) -> str:
        """Return a name nobody else on this machine uses."""
        self.interfaces.append(self.bed.interface_name())
        return self.interfaces[-1]

    def clear(self) -> None:
        """Take down what a test that failed has left, for the sake of the next one."""
        for name in self.interfaces:
            if (DIRECTORY / f"{name}.json").exists() or self.client.has_interface(name):
                self.run("wgdctl", "down", self.bed.directory / f"{name}.conf", check=False)
                self.client.ip("link", "delete", name, check=False)
                self.client.sysctl(_SRC_VALID_MARK, "0")
            for suffix in ("json", "done"):
                (DIRECTORY / f"{name}.{suffix}").unlink(missing_ok=True)
        self.interfaces.clear()

    def program(self, name: str, text: str) -> None:
        """Put a program first on the client's PATH."""
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def write(
        self,
        interface: str,
        interface_lines: str = "Address = 10.77.0.1/24, fd77::1/64",
        allowed_ips: str = "10.77.0.0/24, fd77::/64",
        endpoint: str = f"192.0.2.2:{SERVER_PORT}",
    ) -> Path:
        """Write the client's file; its name is the interface's."""
        path = self.bed.directory / f"{interface}.conf"
        path.touch(0o600)
        path.write_text(
            f"[Interface]\nPrivateKey = {self.client_keys.private}\n{interface_lines}\n"
            f"[Peer]\nPublicKey = {self.server_keys.public}\nAllowedIPs = {allowed_ips}\n"
            f"Endpoint = {endpoint}\n"
        )
        return path

    def environment(self) -> dict[str, str]:
        """Return the environment for a program in the client."""
        (daemon,) = daemon_command()
        path = f"{Path(daemon).parent}:{self.programs}:{os.environ['PATH']}"
        return {
            "PATH": path,
            "WG_QUICK_USERSPACE_IMPLEMENTATION": Path(daemon).name,
            "WG_ENDPOINT_RESOLUTION_RETRIES": "0",
        }

    def run(self, *command: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a program in the client's namespace."""
        return self.client.run(*command, env=self.environment(), check=check)

    def wgdctl(self, action: str, what: str | Path) -> str:
        """Run `wgdctl`, which must succeed, and return what it said on stderr."""
        return self.run("wgdctl", action, what).stderr

    def wgdctl_error(self, action: str, what: str | Path) -> str:
        """Run `wgdctl`, which must fail, and return the last line it said."""
        completed = self.run("wgdctl", action, what, check=False)
        assert completed.returncode == 1, completed
        return completed.stderr.splitlines()[-1]

    def wg_quick(self, action: str, path: Path) -> str:
        """Run the real wg-quick; it leaves a sysctl behind, which is put back."""
        before = self.src_valid_mark()
        completed = self.run("wg-quick", action, path)
        if action == "down":
            self.wait_for_end(path.stem)
            self.client.sysctl(_SRC_VALID_MARK, "0")
        else:
            assert before == "0"
        return completed.stdout

    def wait_for_end(self, interface: str) -> None:
        """Wait until the daemon of an interface has removed its socket."""
        path = SOCKET_DIRECTORY / f"{interface}.sock"
        wait_until(lambda: not path.exists(), what="the daemon's end")

    @contextmanager
    def hosts(self, text: str) -> Iterator[Path]:
        """Give the client's programs a hosts file, and no name server (see ip-netns(8)).

        What is written to the file that is yielded, they see; it goes with them.
        """
        directory = Path("/etc/netns") / self.client.name
        directory.mkdir(parents=True)
        try:
            (directory / "hosts").write_text(text)
            (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
            yield directory / "hosts"
        finally:
            shutil.rmtree(directory)

    def forked(self, action: Callable[[], object]) -> int:
        """Run `action` in a fork in the client, and return the exit status, or minus the signal.

        An exception is status 1. All that has been imported here need not be again.
        """
        pid = os.fork()
        if pid == 0:
            # Ends within: who gives up root cannot leave the namespace again.
            with self.client.entered():
                status = 1
                try:
                    os.environ.update(self.environment())
                    action()
                    status = 0
                except BaseException as error:  # noqa: BLE001 - the fork must end here
                    os.write(2, f"{type(error).__name__}: {error}\n".encode())
                finally:
                    os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def state(self, interface: str, *, ignore: tuple[str, ...] = ()) -> str:
        """Return all that up and down may change for an interface.

        Random or counted, and made the same: the index of the interface and its own link-local
        address. `ignore` names parts to leave out.
        """
        script = f"; echo {_MARK}; ".join(_SHOWN.values())
        outputs = self.run("sh", "-c", script).stdout.split(f"{_MARK}\n")
        parts = {
            **dict(zip(_SHOWN, outputs, strict=True)),
            "src_valid_mark": self.src_valid_mark(),
            "dns": "".join(
                f"{path.name}: {path.read_text()}" for path in sorted(self.resolv.iterdir())
            ),
            "files": "".join(
                f"{path}\n"
                for directory in (DIRECTORY, SOCKET_DIRECTORY)
                for path in sorted(directory.glob(f"*{interface}[.]*"))
            ),
        }
        own = re.findall(r"inet6 (fe80::\S+)/64 scope link stable-privacy", parts["addresses"])
        for name, text in parts.items():
            for address in own:
                text = text.replace(address, "LINK-LOCAL")
            parts[name] = re.sub(rf"(?m)^\d+: {interface}:", f"N: {interface}:", text)
        # The kernel sorts these by address.
        parts["routes6"] = "\n".join(sorted(parts["routes6"].splitlines()))
        return "".join(f"{name}:\n{parts[name]}\n" for name in parts if name not in ignore)

    def src_valid_mark(self) -> str:
        """Return the sysctl that a full tunnel needs."""
        with self.client.entered():
            return (Path("/proc/sys") / _SRC_VALID_MARK).read_text().strip()
