"""The janitor removes a daemon's socket files at its end, and can be made to do nothing else.

The daemon here is a small Python process: it starts a janitor, has it watch, and then does what a
test tells it on stdin.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.waiting import wait_until
from wgd.service.janitor import NAME, Janitor

DAEMON = """\
import sys
from pathlib import Path
from wgd.service.janitor import Janitor
janitor = Janitor.start()
janitor.watch(*map(Path, sys.argv[1:]))
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class FakeDaemon:
    """A process with a janitor; ended with the test, and the janitor with it."""

    def __init__(self, *paths: Path, before: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", before + DAEMON, *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def do(self, statement: str) -> str:
        """Have it run one line of Python, and return what that prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{statement}; print('', flush=True)\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    @property
    def janitor(self) -> Path:
        """The janitor's directory in /proc."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        (pid,) = path.read_text().split()
        return Path("/proc") / pid

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(10)


@pytest.fixture
def started() -> Iterator[list[FakeDaemon]]:
    """Daemons put into this list are ended with the test."""
    daemons: list[FakeDaemon] = []
    yield daemons
    for daemon in daemons:
        with contextlib.ExitStack() as stack:
            for pipe in (daemon.process.stdin, daemon.process.stdout):
                assert pipe is not None
                stack.enter_context(contextlib.suppress(BrokenPipeError))
                stack.callback(pipe.close)
            daemon.end()


def make_socket(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(os.fspath(path))
    return made


def gone(path: Path) -> None:
    wait_until(lambda: not path.exists(), what=f"{path} is removed")


def wait_for_end(process: Path) -> None:
    wait_until(lambda: has_ended(process), what="the janitor's end")


def has_ended(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=str)
def test_files_go_when_the_daemon_ends_in_any_way(
    tmp_path: Path, started: list[FakeDaemon], number: signal.Signals
) -> None:
    paths = [tmp_path / "a b.sock", tmp_path / "\udcff\n.sock", tmp_path / "never-there"]
    sockets = [make_socket(path) for path in paths[:2]]
    started.append(daemon := FakeDaemon(*paths))
    janitor = daemon.janitor
    assert all(path.exists() for path in paths[:2])
    daemon.end(number)
    for path in paths:
        gone(path)
    wait_for_end(janitor)
    for made in sockets:
        made.close()


@linux
def test_signals_to_the_group_do_not_end_or_stop_it(
    tmp_path: Path, started: list[FakeDaemon]
) -> None:
    path = tmp_path / "wg0.sock"
    with make_socket(path):
        started.append(daemon := FakeDaemon(path, before="import signal\n"))
        daemon.do("[signal.signal(number, signal.SIG_IGN) for number in (1, 2, 3, 10, 12, 15, 20)]")
        janitor = daemon.janitor
        for number in ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "TSTP"):
            os.killpg(daemon.process.pid, signal.Signals[f"SIG{number}"])
        daemon.do("1")
        assert not has_ended(janitor)
        daemon.end()
        gone(path)


@linux
def test_a_signal_before_its_first_instruction_does_not_end_it(
    tmp_path: Path, started: list[FakeDaemon]
) -> None:
    path = tmp_path / "wg0.sock"
    # The hook runs in the child before anything of the janitor's, and the signal is there by then.
    before = (
        "import os, signal\n"
        "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
    )
    with make_socket(path):
        started.append(daemon := FakeDaemon(path, before=before))
        assert not has_ended(daemon.janitor)
        daemon.end()
        gone(path)


@linux
def test_it_holds_little_and_is_named(tmp_path: Path, started: list[FakeDaemon]) -> None:
    path = tmp_path / "wg0.sock"
    with make_socket(path):
        started.append(daemon := FakeDaemon(path))
        wait_until(
            lambda: list((daemon.janitor / "fd").iterdir()) == [daemon.janitor / "fd/0"],
            what="it closes all but one descriptor",
        )
        janitor = daemon.janitor
        wait_until(lambda: (janitor / "comm").read_text() == f"{NAME}\n", what="it is named")
        assert (janitor / "cwd").readlink() == Path("/")
        rollup = dict(
            line.split()[:2] for line in (janitor / "smaps_rollup").read_text().splitlines()[1:]
        )
        private_kib = int(rollup["Private_Dirty:"]) + int(rollup["Private_Clean:"])
        assert private_kib < 2048


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_has_one_capability_at_most(tmp_path: Path, started: list[FakeDaemon]) -> None:
    dac_override = 1 << 1
    started.append(daemon := FakeDaemon(tmp_path / "none"))

    def permitted() -> int:
        fields = dict(
            line.split(":\t", 1) for line in (daemon.janitor / "status").read_text().splitlines()
        )
        assert int(fields["CapEff"], 16) & ~int(fields["CapPrm"], 16) == 0
        return int(fields["CapPrm"], 16)

    wait_until(lambda: permitted() & ~dac_override == 0, what="it gives the others up")


@linux
def test_at_an_orderly_end_the_file_is_gone_at_once(
    tmp_path: Path, started: list[FakeDaemon]
) -> None:
    path = tmp_path / "wg0.sock"
    with make_socket(path):
        started.append(daemon := FakeDaemon(path))
        assert (
            daemon.do(f"janitor.finish(); print(Path({str(path)!r}).exists(), end='')") == "False"
        )
        assert daemon.do("janitor.finish(); print(janitor.fileno(), end='')") == "-1"
        children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
        assert children.read_text() == "", "it left a zombie"


@linux
def test_what_is_no_longer_the_same_socket_stays(tmp_path: Path, started: list[FakeDaemon]) -> None:
    replaced, removed, plain, link = (tmp_path / name for name in ("a", "b", "c", "d"))
    sockets = [make_socket(replaced), make_socket(removed), make_socket(tmp_path / "target")]
    plain.write_text("precious")
    link.symlink_to("target")
    started.append(daemon := FakeDaemon(replaced, removed, plain, link))
    janitor = daemon.janitor
    sockets.append(make_socket(tmp_path / "new"))  # beside the old one: it has another inode
    (tmp_path / "new").rename(replaced)
    removed.unlink()
    daemon.end()
    wait_for_end(janitor)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "c", "d", "target"]
    for made in sockets:
        made.close()


@linux
def test_the_first_list_is_the_only_one(tmp_path: Path, started: list[FakeDaemon]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with make_socket(first), make_socket(second):
        status = second.lstat()
        record = b"%d %d %s\0" % (status.st_dev, status.st_ino, os.fsencode(second))
        forged = len(record).to_bytes(4, "big") + record
        started.append(one := FakeDaemon(first))
        started.append(none := FakeDaemon())
        for daemon in (one, none):
            daemon.do(f"import os; os.write(janitor.fileno(), {forged!r})")
            janitor = daemon.janitor
            daemon.end()
            wait_for_end(janitor)
        assert not first.exists()
        assert second.exists()


def test_a_second_list_is_refused_here(tmp_path: Path) -> None:
    janitor = Janitor.start()
    try:
        janitor.watch()
        with pytest.raises(RuntimeError):
            janitor.watch(tmp_path)
    finally:
        janitor.finish()


@linux
def test_an_exec_keeps_it(tmp_path: Path, started: list[FakeDaemon]) -> None:
    path = tmp_path / "wg0.sock"
    successor = (
        "import sys; from wgd.service.janitor import Janitor\n"
        "janitor = Janitor.adopt(int(sys.argv[1])); print('ready', flush=True)\n"
        "for line in sys.stdin: exec(line)"
    )
    with make_socket(path):
        started.append(daemon := FakeDaemon(path, before="import os, sys\n"))
        janitor = daemon.janitor
        daemon.do("os.set_inheritable(janitor.fileno(), True)")
        assert daemon.process.stdin is not None
        assert daemon.process.stdout is not None
        daemon.process.stdin.write(
            f"os.execv(sys.executable, [sys.executable, '-c', {successor!r}, "
            "str(janitor.fileno())])\n"
        )
        daemon.process.stdin.flush()
        assert daemon.process.stdout.readline() == "ready\n"
        assert daemon.janitor == janitor
        assert path.exists()
        assert (
            daemon.do("import os; print(os.get_inheritable(janitor.fileno()), end='')") == "False"
        )
        daemon.do("janitor.finish()")
        assert not path.exists()


@linux
def test_without_a_list_it_just_ends(started: list[FakeDaemon]) -> None:
    program = "from wgd.service.janitor import Janitor\nJanitor.start()\nprint('ready')\n"
    completed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    # It let go of the pipes, or this would have waited for it.
    assert (completed.stdout, completed.stderr) == ("ready\n", "")
