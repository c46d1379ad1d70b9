"""What bash, zsh and fish offer, asked of the shells themselves."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.manual import shells
from tests.manual.conftest import KEY, OTHER_KEY
from wgd.manual import programs as described


@pytest.fixture(params=shells.ALL)
def offers(
    request: pytest.FixtureRequest, programs: Path, need: Callable[[str], None]
) -> Callable[[str], set[str]]:
    need(request.param)
    return lambda line: shells.ALL[request.param](line, programs)


Offers = Callable[[str], set[str]]


def test_subcommands(offers: Offers) -> None:
    assert offers("wgdctl ") == {each.name for each in described.wgdctl().subcommands}
    assert offers("wgdctl sho") == {"show", "showconf"}
    assert offers("wgdctl --uapi-dir /tmp do") == {"doctor", "down"}


def test_options(offers: Offers) -> None:
    names = {name for option in described.wgd().options for name in option.names}
    assert offers("wgd --") == {name for name in names if name.startswith("--")}
    assert offers("wgd wg0 --data") == {"--dataplane"}
    assert offers("wgdctl doctor --") == {"--json", "--no-probe", "--config"}
    assert offers("wgdctl genkey --") == set()


def test_values_of_options(offers: Offers, tmp_path: Path) -> None:
    assert offers("wgd --dataplane ") == {"auto", "native", "portable"}
    assert offers("wgd --user nobo") == {"nobody"}
    (tmp_path / "office.conf").touch()
    assert offers(f"wgd --config {tmp_path}/off") <= {f"{tmp_path}/office.conf", "office.conf"}
    assert offers(f"wgd --config {tmp_path}/off")
    assert offers("wgd --workers ") == set()


def test_interfaces_and_fields(offers: Offers) -> None:
    assert offers("wgdctl show ") == {"wg0", "wg-home", "all", "interfaces"}
    assert offers("wgdctl show wg0 pe") == {"peers", "persistent-keepalive"}
    assert offers("wgdctl showconf wg-") == {"wg-home"}
    assert offers("wgdctl showconf wg0 ") == set()
    assert offers("wgdctl top --once wg0 wg-") == {"wg-home"}
    assert offers("wgdctl log-level wg0 s") == {"silent"}


def test_set(offers: Offers) -> None:
    device = {"listen-port", "fwmark", "private-key", "peer"}
    peer = {"peer", "remove", "preshared-key", "endpoint", "persistent-keepalive", "allowed-ips"}
    assert offers("wgdctl set wg0 ") == device
    assert offers("wgdctl set wg0 listen-port 51820 ") == device
    assert offers("wgdctl set wg0 peer ") == {KEY, OTHER_KEY}
    assert offers("wgdctl set wg0 peer BB") == {OTHER_KEY}
    assert offers(f"wgdctl set wg0 peer {KEY} ") == peer
    assert offers(f"wgdctl set wg0 peer {KEY} endpoint ") == set()
    assert offers(f"wgdctl set wg0 peer {KEY} allowed-ips -10.0.0.0/8 re") == {"remove"}


def test_configuration_files(offers: Offers, tmp_path: Path) -> None:
    (tmp_path / "office.conf").touch()
    (tmp_path / "office.txt").touch()
    found = offers(f"wgdctl up {tmp_path}/off")
    assert found
    assert found <= {f"{tmp_path}/office.conf", "office.conf"}


def test_bash_takes_values_after_an_equals_sign(programs: Path) -> None:
    # Readline splits there, and replaces only what is behind it.
    assert shells.bash("wgd --dataplane=po", programs) == {"portable"}
    assert shells.bash("wgd --user=nobo", programs) == {"nobody"}


def test_bash_runs_nothing_that_is_in_a_name(programs: Path) -> None:
    trap = programs / "ran"
    (programs / "wgdctl").write_text(f"#!/bin/sh\necho '$(>{trap})' '*'\n")
    assert "$(>" in "".join(shells.bash("wgdctl show ", programs))
    assert not trap.exists()


def test_an_interactive_bash_inserts_what_the_command_then_gets(programs: Path) -> None:
    """The key ends with a "=", at which bash splits words."""
    with shells.Terminal(["bash", "--norc", "--noprofile", "-i"], programs) as terminal:
        terminal.type(f"source {shells.SCRIPTS}/wgdctl.bash\n")
        terminal.type("wgdctl set w\t0 peer BB\trem\t\n")
        said = terminal.read_until("<remove>")
    assert f"SAID <set> <wg0> <peer> <{OTHER_KEY}> <remove>" in said


def _scripts() -> Iterator[tuple[str, Path]]:
    for path in sorted(shells.SCRIPTS.iterdir()):
        yield {".bash": "bash", ".fish": "fish"}.get(path.suffix, "zsh"), path


def _name_of(value: str | Path) -> str:
    return Path(value).name


@pytest.mark.parametrize(("shell", "path"), list(_scripts()), ids=_name_of)
def test_the_scripts_parse(shell: str, path: Path, need: Callable[[str], None]) -> None:
    need(shell)
    checked = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_shellcheck_finds_nothing_in_those_for_bash(need: Callable[[str], None]) -> None:
    need("shellcheck")
    scripts = sorted(shells.SCRIPTS.glob("*.bash"))
    checked = subprocess.run(
        ["shellcheck", "--shell=bash", *scripts], capture_output=True, text=True, check=False
    )
    assert checked.stdout == ""
