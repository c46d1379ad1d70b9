"""The testbed: makes everything a test needs and removes it whatever happens."""

import base64
import contextlib
import secrets
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.testbed.daemons import Daemon, Program, daemon_command
from tests.testbed.namespaces import Namespace, run, unique_name
from tests.testbed.uapi import SOCKET_DIRECTORY

_QUIET: Mapping[str, str] = MappingProxyType({})
_VERBOSE: Mapping[str, str] = MappingProxyType({"LOG_LEVEL": "verbose"})


class Keys(NamedTuple):
    """A key pair in base64, as `wg genkey` and `wg pubkey` print it."""

    private: str
    public: str


class Testbed:
    """Namespaces, links, daemons and secrets of one test; a context manager.

    On the way out it ends the daemons, removes all it made, and checks that no daemon ever
    printed a secret: that holds for every test there is. `environment` is for all daemons.
    """

    __test__ = False  # pytest: this is not a class of tests

    def __init__(self, *, show_logs: bool = True, environment: Mapping[str, str] = _QUIET) -> None:
        self._show_logs = show_logs
        self._environment = environment
        self._namespaces: list[Namespace] = []
        self._programs: list[Program] = []
        self._secrets: list[str] = []
        self._interfaces: list[str] = []
        self._temporary = tempfile.TemporaryDirectory(prefix="wgd-testbed-")
        self.directory = Path(self._temporary.name)

    def __enter__(self) -> "Testbed":
        return self

    def __exit__(self, *_exception: object) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._temporary.cleanup)
            for interface in self._interfaces:
                stack.callback((SOCKET_DIRECTORY / f"{interface}.sock").unlink, missing_ok=True)
            for namespace in self._namespaces:
                stack.callback(namespace.delete)
            stack.callback(self._check_for_secrets)
            for program in self._programs:
                stack.callback(program.kill)

    # -- the network -------------------------------------------------------------------------------

    def namespace(self) -> Namespace:
        """Make a network namespace with its loopback up."""
        namespace = Namespace(unique_name("wgdtest"))
        self._namespaces.append(namespace)
        return namespace

    def forget(self, namespace: Namespace) -> None:
        """Leave the removal of a namespace to the test."""
        self._namespaces.remove(namespace)

    def link(
        self,
        left: Namespace,
        right: Namespace,
        *,
        name: str = "eth0",
        mtu: int = 1500,
    ) -> None:
        """Join two namespaces with a veth pair whose ends are both called `name`."""
        run(
            *("ip", "link", "add", name, "mtu", str(mtu), "netns", left.name, "type", "veth"),
            *("peer", "name", name, "mtu", str(mtu), "netns", right.name),
        )
        for namespace in (left, right):
            namespace.ip("link", "set", "dev", name, "up")

    # -- secrets -----------------------------------------------------------------------------------

    def keys(self) -> Keys:
        """Make a key pair; the private key must never show up in a log."""
        private = X25519PrivateKey.generate()
        return Keys(
            self._remember(private.private_bytes_raw()),
            base64.b64encode(private.public_key().public_bytes_raw()).decode(),
        )

    def preshared_key(self) -> str:
        """Make a preshared key in base64; it must never show up in a log."""
        return self._remember(secrets.token_bytes(32))

    def file(self, content: str) -> Path:
        """Return a private file with `content`, as `wg set` wants its keys."""
        path = self.directory / unique_name("file")
        path.touch(0o600)
        path.write_text(content)
        return path

    def _remember(self, key: bytes) -> str:
        text = base64.b64encode(key).decode()
        # Without the last digits: a clamped key and a cut-off one are as bad.
        self._secrets += [text[1:40], key[1:30].hex()]
        return text

    def _check_for_secrets(self) -> None:
        for program in self._programs:
            output = program.output
            if self._show_logs:
                sys.stdout.write(output)  # pytest shows it when the test fails
            assert not any(secret in output for secret in self._secrets), "a secret was logged"

    # -- daemons -----------------------------------------------------------------------------------

    def interface_name(self) -> str:
        """Return a name nobody else on this machine uses: all namespaces share the sockets."""
        name = unique_name("wg")
        self._interfaces.append(name)
        return name

    def run_program(
        self,
        namespace: Namespace,
        *arguments: str,
        command: Iterable[str | Path] | None = None,
        environment: Mapping[str, str] = _QUIET,
        pass_fds: Iterable[int] = (),
    ) -> Program:
        """Start the daemon's program with `arguments`, whatever comes of it."""
        program = Program(
            namespace,
            [*(daemon_command() if command is None else command), *arguments],
            unique_name("start"),
            self.directory,
            {**self._environment, **environment},
            pass_fds,
        )
        self._programs.append(program)
        return program

    def daemon(
        self,
        namespace: Namespace,
        *,
        interface: str | None = None,
        command: Iterable[str | Path] | None = None,
        environment: Mapping[str, str] = _VERBOSE,
        engine: str | None = None,
    ) -> Daemon:
        """Start a daemon in the background, as wg-quick does; it is ready on return.

        `engine` is what moves its packets, if that is not left to the daemon.
        """
        name = interface or self.interface_name()
        if engine is not None:
            environment = {**environment, "WGD_DATAPLANE": engine}
        program = self.run_program(namespace, name, command=command, environment=environment)
        daemon = Daemon(namespace, name, program)
        daemon.launch = program.launched()
        assert daemon.launch.returncode == 0, f"the daemon did not start: {program.output}"
        return daemon
