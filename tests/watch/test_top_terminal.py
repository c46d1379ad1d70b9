"""`wgdctl top` on a terminal: whatever ends it, the terminal is as it was before."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.fake_uapi import FakeUapi
from tests.watch.test_top_sources import OTHER_STATE

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
SHOW_CURSOR = b"\x1b[?25h"


class Terminal:
    """A terminal of 80 by 24 with `wgdctl top` on it."""

    def __init__(self, directory: Path) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.output = b""
        environment = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wgd.ctl", "--uapi-dir", directory, "top", "wg7"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )

    def read_until(self, is_enough: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not is_enough():
            assert time.monotonic() < deadline, self.output[-2000:]
            if select.select([self.master], [], [], 0.05)[0]:
                self.output += os.read(self.master, 1 << 16)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self.master)
        os.close(self.slave)


@pytest.mark.parametrize(
    "end",
    [
        lambda terminal: os.write(terminal.master, b"q"),
        lambda terminal: os.write(terminal.master, b"\x03"),
        lambda terminal: terminal.process.send_signal(signal.SIGTERM),
        lambda terminal: terminal.process.send_signal(signal.SIGHUP),
        lambda terminal: terminal.process.send_signal(signal.SIGINT),
    ],
    ids=["q", "ctrl-c", "SIGTERM", "SIGHUP", "SIGINT"],
)
def test_the_terminal_is_given_back(tmp_path: Path, end: Callable[[Terminal], object]) -> None:
    with FakeUapi("wg7", OTHER_STATE, tmp_path), contextlib.closing(Terminal(tmp_path)) as terminal:
        terminal.read_until(lambda: ENTER in terminal.output and b"192.0.2.5" in terminal.output)
        assert termios.tcgetattr(terminal.slave) != terminal.before
        end(terminal)
        terminal.read_until(lambda: terminal.process.poll() is not None)
        terminal.read_until(lambda: LEAVE in terminal.output)
        assert termios.tcgetattr(terminal.slave) == terminal.before
        assert SHOW_CURSOR in terminal.output[terminal.output.rindex(ENTER) :]
        assert b"Traceback" not in terminal.output
