"""docs/quick-start.md, done: every command of it, on two machines in namespaces."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.testbed import Namespace, Testbed
from tests.testbed.daemons import daemon_command
from tests.testbed.requirements import require

_PAGE: Final = Path(__file__).parents[2] / "docs" / "quick-start.md"
_BLOCK: Final = re.compile(r"^```(sh|ini) (A|B|both)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE: Final = "/etc/wireguard/wg0.conf"
_BLANK: Final = re.compile(r"(PRIVATE|PUBLIC)-KEY-OF-[AB]")
_BASE64: Final = re.compile(r"^[A-Za-z0-9+/]{43}=$", re.MULTILINE)

_DONE: Final = "this was the last line, status "


class Machine:
    """A shell in a network namespace, with a /run and a configuration of its own."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        path = Path(daemon_command()[0]).parent
        # `ip netns exec` makes a mount namespace, which lives as long as what runs in it.
        self._shell = subprocess.Popen(
            namespace.command("bash"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.run("mount -t tmpfs tmpfs /run")
        self.run("mkdir -p /etc/wireguard; mount -t tmpfs tmpfs /etc/wireguard")
        self.run(f"export PATH={path}:$PATH", own_shell=True)

    def run(self, commands: str, *, own_shell: bool = False) -> str:
        """Run commands to their end and return what they print. AssertionError if one fails."""
        inner = commands if own_shell else f"bash -e -o pipefail <<'DONE'\n{commands}\nDONE"
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{inner}\necho\necho '{_DONE}'$?\n")
        self._shell.stdin.flush()
        printed = ""
        for line in self._shell.stdout:
            if line.startswith(_DONE):
                assert line == f"{_DONE}0\n", f"{commands}\n{printed}"
                return printed
            printed += line
        raise AssertionError(f"the shell ended: {printed}")

    def close(self) -> None:
        self._shell.kill()
        self._shell.communicate()


@pytest.fixture
def machines(testbed: Testbed) -> Iterator[dict[str, Machine]]:
    require()
    namespaces = {"A": testbed.namespace(), "B": testbed.namespace()}
    testbed.link(namespaces["A"], namespaces["B"])
    namespaces["A"].add_address("eth0", "192.0.2.1/24")
    namespaces["B"].add_address("eth0", "192.0.2.2/24")
    with ExitStack() as opened:
        found = {}
        for name, namespace in namespaces.items():
            machine = Machine(namespace)
            opened.callback(machine.close)
            found[name] = machine
        yield found
        for machine in found.values():
            machine.run("! ip link show wg0 2>/dev/null || ip link delete wg0")


@pytest.mark.slow
def test_every_command_works(machines: dict[str, Machine]) -> None:
    keys: dict[str, str] = {}
    printed: dict[str, str] = {}
    commands = ""
    for kind, who, content in _BLOCK.findall(_PAGE.read_text()):
        for name in ("A", "B") if who == "both" else who:
            text = _BLANK.sub(lambda found: keys[found[0]], content)
            if kind == "ini":
                machines[name].run(f"cat > {_FILE} <<'END'\n{text}END")
                continue
            said = machines[name].run(text)
            commands += text
            printed[name] = printed.get(name, "") + said
            if "genkey" in text:
                private, public = _BASE64.findall(said)
                keys[f"PRIVATE-KEY-OF-{name}"] = private
                keys[f"PUBLIC-KEY-OF-{name}"] = public
    assert "3 received" in printed["B"]
    assert "latest handshake" in printed["A"]
    assert keys["PUBLIC-KEY-OF-B"] in printed["A"]
    for name in "AB":
        assert "[#] ip link delete dev wg0" in printed[name]
        machines[name].run("! ip link show wg0 2>/dev/null")
    for command in ("up", "doctor", "show", "top", "log-level", "syncconf", "down"):
        assert f"wgdctl {command} " in commands.replace("\n", " ")
