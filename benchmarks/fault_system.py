"""Each fault of the system once: what a daemon does while it lasts, and when it is over.

wgd (both data planes) and wireguard-go, each between two namespaces, one after the other. The
faults are those of tests/faults; what wireguard-go has not (journal, saved file, key log) is only
there.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from faults_report import Table, parser, write
from implementations import find_implementations

from tests.faults.clients import big_set, lines_of
from tests.faults.network_faults import NETWORK_FAULTS
from tests.faults.sending import flood, pinging
from tests.testbed import Testbed, Tunnel, UapiConnection, wait_until
from tests.testbed.limits import Disk, no_new_descriptors

_COLUMNS = ("fault", "daemon", "while it lasts", "afterwards")
_CLIENTS = 20
_NO_DESCRIPTORS = "no descriptors, 20 new clients"
_PEERS = 200
_FLOOD_SECONDS = 0.3
_OUTAGE_SECONDS = 1.0


@dataclass(frozen=True)
class _Daemon:
    name: str
    command: list[str] | None
    environment: dict[str, str]

    def tunnel(self, bed: Testbed, left_command: list[str] | None = None) -> Tunnel:
        return Tunnel.build(
            bed, left_command=left_command or self.command, right_command=self.command
        )


_Seen = tuple[str, str, str]
"""Fault, what was seen while it lasted, and afterwards."""


def main(argv: Sequence[str]) -> int:
    """Make them all; 0 if every tunnel of wgd worked again."""
    given = parser("system", __doc__, seeds=1, seconds=600).parse_args(argv)
    (go,) = (one for one in find_implementations((), {})[0] if one.name == "wireguard-go")
    daemons = (
        _Daemon("wgd, native", None, {"WGD_DATAPLANE": "native"}),
        _Daemon("wgd, portable", None, {"WGD_DATAPLANE": "portable"}),
        _Daemon("wireguard-go", [str(go.program)], {}),
    )
    faults = (_network, _descriptors, _full_log, _client_gone, _tun_deleted, _namespace_deleted)
    seen: list[tuple[str, str, str, str]] = []
    for make in faults:
        for daemon in daemons:
            sys.stderr.write(f"{make.__name__.strip('_')}: {daemon.name}\n")
            with Testbed(show_logs=False, environment=daemon.environment) as bed:
                seen += [
                    (fault, daemon.name, during, after)
                    for fault, during, after in make(daemon, bed)
                ]
    order = list(dict.fromkeys(fault for fault, *_ in seen))
    seen.sort(key=lambda row: order.index(row[0]))
    notes = [
        "Twenty pings a second are sent. That a peer's link is up again the kernel notices up to a "
        "second late, whatever the daemon.",
    ]
    write([Table("Faults of the system", _COLUMNS, seen, notes)], given.json)
    return any(daemon != "wireguard-go" and "never" in after for _, daemon, _, after in seen)


def _network(daemon: _Daemon, bed: Testbed) -> list[_Seen]:
    tunnel = daemon.tunnel(bed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    seen = []
    with pinging(left.home, right.inner4, bed.directory) as pings:
        pings.wait_for_more()
        for fault in NETWORK_FAULTS:
            fault.begin(tunnel)
            with flood(left.home, right.inner4):
                time.sleep(_FLOOD_SECONDS)
            time.sleep(_OUTAGE_SECONDS)
            is_silent = not pings.answered or time.time() - pings.answered[-1] > 0.5
            mended = time.time()
            fault.end(tunnel)
            after = _seconds(lambda: pings.seconds_until_answer(mended, 30))  # noqa: B023
            name = f"{fault.name} ({fault.errno})" if fault.errno else fault.name
            during = "silence" if is_silent else "pings are answered"
            seen.append((name, during, f"pings are answered after {after}"))
    return seen


def _descriptors(daemon: _Daemon, bed: Testbed) -> list[_Seen]:
    tunnel = daemon.tunnel(bed)
    left = tunnel.left
    tunnel.assert_works(versions=(4,))
    pid = left.daemon.pid
    clients: list[UapiConnection] = []
    with ExitStack() as opened:
        with no_new_descriptors(pid):
            with suppress(OSError):  # it may have ended at the first
                for _ in range(_CLIENTS):
                    clients.append(opened.enter_context(UapiConnection(left.daemon.socket_path)))
                    clients[-1].send("get=1\n\n")
            began, used = time.monotonic(), _cpu_seconds(pid)
            time.sleep(2)
            cpu = (_cpu_seconds(pid) - used) / (time.monotonic() - began)
            if not left.daemon.is_running():
                return [(_NO_DESCRIPTORS, "the daemon ends", "no tunnel")]
            is_lossless = left.ping(tunnel.right).is_lossless
        mended = time.monotonic()
        answered = _seconds(lambda: len(clients[-1].reply()) and time.monotonic() - mended)
    loss = "no ping lost" if is_lossless else "pings lost"
    return [
        (
            _NO_DESCRIPTORS,
            f"{loss}, {100 * cpu:.0f} % of a core",
            f"the last of them is answered after {answered}",
        )
    ]


def _full_log(daemon: _Daemon, bed: Testbed) -> list[_Seen]:
    program = daemon.command or [str(Path(sys.executable).with_name("wgd"))]
    with Disk(bed.directory / "disk") as disk:
        log = disk.path / "log"
        shell = ["sh", "-c", f'exec {program[0]} "$@" >{log} 2>&1', "sh"]
        tunnel = daemon.tunnel(bed, shell)
        left = tunnel.left
        tunnel.assert_works(versions=(4,))
        disk.fill()
        for _ in range(_PEERS):
            with UapiConnection(left.daemon.socket_path) as client:
                client.request("set=1\nfoo=1\n\n")
        left.bounce()
        is_lossless = left.ping(tunnel.right).is_lossless
        disk.free()
        left.bounce()
        tunnel.assert_works(versions=(4,))
        wait_until(lambda: "\0" not in log.read_text(errors="replace"), what="text")
        lost = "the lines lost are counted" if "log_lines_lost" in log.read_text() else ""
    works = "a handshake and pings work" if is_lossless else "pings lost"
    return [("the log's disk is full", works, lost or "nothing says that lines are missing")]


def _client_gone(daemon: _Daemon, bed: Testbed) -> list[_Seen]:
    served = bed.daemon(bed.namespace(), command=daemon.command)
    whole = big_set(_PEERS, 6)
    lines = lines_of(whole)
    with UapiConnection(served.socket_path) as client:
        client.send(b"".join(lines[: len(lines) // 2]).decode())
    time.sleep(1)
    peers = len(served.get().peers)
    half = f"{peers} of {_PEERS} peers were applied"
    return [("a client is gone amid a `set`", half, "whole or nothing" if not peers else "a part")]


def _tun_deleted(daemon: _Daemon, bed: Testbed) -> list[_Seen]:
    tunnel = daemon.tunnel(bed)
    left = tunnel.left
    tunnel.assert_works(versions=(4,))
    with flood(left.home, tunnel.right.inner4), flood(tunnel.right.home, left.inner4):
        time.sleep(_FLOOD_SECONDS)
        left.home.ip("link", "delete", left.daemon.interface)
        return [("the TUN is deleted under traffic", *_end(tunnel))]


def _namespace_deleted(daemon: _Daemon, bed: Testbed) -> list[_Seen]:
    tunnel = daemon.tunnel(bed)
    left = tunnel.left
    left.home = bed.namespace()
    left.namespace.ip("link", "set", left.daemon.interface, "netns", left.home.name)
    tunnel.give_addresses(left, with_ipv6=False)
    left.home.ip("link", "set", left.daemon.interface, "up")
    bed.forget(left.home)
    left.home.delete()
    return [("the TUN's namespace is deleted", *_end(tunnel))]


def _end(tunnel: Tunnel) -> tuple[str, str]:
    """Wait for the end of the left daemon; say how it ended."""
    daemon, began = tunnel.left.daemon, time.monotonic()
    try:
        wait_until(lambda: not daemon.is_running(), 15, what="the end")
    except AssertionError:
        return "the daemon stays, without an interface", "it never ends"
    seconds = time.monotonic() - began
    left = "its socket is left" if daemon.socket_path.exists() else "nothing is left"
    return f"the daemon ends after {seconds:.2f} s", left


def _seconds(measure: Callable[[], float]) -> str:
    try:
        return f"{measure():.2f} s"
    except (AssertionError, OSError, EOFError):
        return "never"


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
