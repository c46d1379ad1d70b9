"""Privileges are given up for good, by all threads, and what the daemon needs later stays.

Each test has a process of its own, because there is no way back. It says what it saw as JSON.
"""

import json
import os
import re
import resource
import subprocess
import sys
from typing import Any

import pytest

from tests.testbed.requirements import require
from wgd.errors import WgdError
from wgd.service.privileges import User

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

NOBODY = 65534
# linux/capability.h
NET_BIND_SERVICE, NET_BROADCAST, NET_ADMIN = 1 << 10, 1 << 11, 1 << 12
THREE = NET_BIND_SERVICE | NET_BROADCAST | NET_ADMIN

PRELUDE = """\
import json, logging, os, socket, subprocess, sys, threading
from pathlib import Path
from wgd.errors import WgdError
from wgd.service import linux_privileges, preload, privileges
from wgd.service.privileges import User, drop_to, harden

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
stop = threading.Event()

def thread():
    threading.Thread(target=stop.wait, daemon=True).start()

def status(path):
    return read_status(Path(path).read_text())

def read_status(text):
    lines = text.splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    sets = {name: int(fields[name][0], 16) for name in fields if name.startswith("Cap")}
    ids = {name: [int(each) for each in fields[name]] for name in ("Uid", "Gid", "Groups")}
    return {**sets, **ids, "NoNewPrivs": fields["NoNewPrivs"], "VmLck": int(fields["VmLck"][0])}

def tasks():
    return {each.name: status(each / "status") for each in Path("/proc/self/task").iterdir()}

def tell(**what):
    print(json.dumps(what))
"""


def run(program: str, *wrapped_in: str) -> tuple[dict[str, Any], str]:
    """Run it; return what it told, and its log."""
    completed = subprocess.run(
        [*wrapped_in, sys.executable, "-c", PRELUDE + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout), completed.stderr


@pytest.fixture
def _root() -> None:
    require("setpriv")


as_root = pytest.mark.usefixtures("_root")


# -- harden ----------------------------------------------------------------------------------------


def test_hardening_is_seen_by_the_kernel() -> None:
    told, log = run("""
hardening = harden()
hardening.log()
thread()
libc = privileges.linux_privileges.ctypes.CDLL(None)
PR_GET_DUMPABLE = 3
limits = Path("/proc/self/limits").read_text()
tell(hardening=hardening, dumpable=libc.prctl(PR_GET_DUMPABLE), limits=limits, tasks=tasks())
""")
    assert told["hardening"][:3] == ["yes"] * 3
    assert told["dumpable"] == 0
    assert re.search(r"core file size +0 +0 ", told["limits"])
    assert len(told["tasks"]) == 2
    assert all(task["NoNewPrivs"] == ["1"] for task in told["tasks"].values())
    assert log.count("\n") == 1
    assert "event=hardened" in log


def test_memory_is_not_locked_under_a_limit_that_stays() -> None:
    # As an unprivileged user, who cannot raise it.
    told, _log = run(f"""
import resource
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
os.geteuid() == 0 and os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
hardening = harden()
more = bytes(1 << 20)
tell(locked=hardening.memory_locked, tasks=tasks())
""")
    assert told["locked"].startswith("no: ")
    assert "65536" in told["locked"]
    assert [task["VmLck"] for task in told["tasks"].values()] == [0]


def test_memory_is_locked_without_a_limit() -> None:
    # Here and in some containers root may lock, but not raise the limit: it is left alone.
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
    if not unlimited and os.geteuid() != 0:
        pytest.skip("needs root, or an unlimited RLIMIT_MEMLOCK")
    told, _log = run("""
import resource
resource.setrlimit = lambda *_arguments: None
hardening = harden()
more = bytes(16 << 20)
tell(locked=hardening.memory_locked, tasks=tasks())
""")
    assert told["locked"] == "yes"
    assert all(task["VmLck"] > 16 << 10 for task in told["tasks"].values())


def test_hardening_never_raises() -> None:
    told, _log = run("""
import resource
def refuse(*_arguments):
    raise PermissionError(1, "refused")
resource.setrlimit = refuse
linux_privileges.capabilities.prctl = refuse
tell(hardening=harden())
""")
    assert all(each.startswith("no: ") for each in told["hardening"])


# -- whom to become --------------------------------------------------------------------------------


def test_a_user_by_name_or_number() -> None:
    by_name, by_number = User.named("nobody"), User.named(str(NOBODY))
    assert by_name.uid == by_number.uid == NOBODY
    assert by_name.gid == by_number.gid
    assert by_name.gid in by_name.groups
    free = 54_321_987
    assert User.named(str(free)) == User(str(free), free, free, (free,))


@pytest.mark.parametrize(
    "name",
    ["", "no such user", "no\0body", "\udcff", "-1", "4294967295", "9" * 30, "\u0661", "root", "0"],
)
def test_nobody_else_is_a_user(name: str) -> None:
    with pytest.raises(WgdError) as caught:
        User.named(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


# -- dropping --------------------------------------------------------------------------------------


@as_root
def test_every_thread_is_the_user_and_later_ones_have_three_capabilities() -> None:
    told, log = run("""
harden()
thread()
before = [*tasks()]
drop_to(User.named("nobody"))
thread()
tell(before=before, main=str(os.getpid()), tasks=tasks())
""")
    for name, task in told["tasks"].items():
        assert set(task["Uid"]) == {NOBODY}
        assert set(task["Groups"]) == set(User.named("nobody").groups)
        assert task["NoNewPrivs"] == ["1"]
        kept = 0 if name in told["before"] and name != told["main"] else THREE
        for each in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert task[each] == kept, each
        if kept:
            assert task["CapBnd"] == THREE
    assert len(told["tasks"]) == 3
    assert "event=privileges_dropped" in log


@as_root
def test_what_the_daemon_does_later_works() -> None:
    told, _log = run(
        """
import wgd.net.netlink, wgd.net.namespaces, wgd.net.udp
preload.import_rest()
drop_to(User.named("nobody"))
(first, *_rest), port = wgd.net.udp.open_sockets(853, 0xCA6C)
first.set_fwmark(77)
try:
    buffer = first._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    with open("/proc/thread-self/ns/net") as namespace:
        is_own = wgd.net.namespaces.is_own_namespace(namespace.fileno())
        number = wgd.net.netlink.get_namespace_id(namespace.fileno())
    everywhere = wgd.net.netlink.open_socket(wgd.net.netlink.RTMGRP_LINK)
    everywhere.setsockopt(
        wgd.net.netlink.SOL_NETLINK, wgd.net.netlink.NETLINK_LISTEN_ALL_NSID, 1
    )
finally:
    first.close()
tell(port=port, buffer=buffer, is_own=is_own, number=number)
""",
        "unshare",
        "--net",
    )
    assert told["port"] == 853
    assert told["buffer"] >= 7 << 20
    assert told["is_own"]
    assert told["number"] >= 0


@as_root
def test_root_does_not_come_back() -> None:
    told, _log = run("""
harden()
drop_to(User.named("nobody"))
tried = []
for attempt in (os.setuid, os.seteuid, os.setgid, os.setegid):
    try:
        attempt(0)
    except PermissionError:
        tried.append("refused")
# su(1) has the set-user-id bit; the other program has none.
shell = "su -c true </dev/null 2>/dev/null && exit 1; cat /proc/self/status"
child = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
tell(tried=tried, child=read_status(child.stdout))
""")
    assert told["tried"] == ["refused"] * 4
    child = told["child"]
    assert set(child["Uid"]) == {NOBODY}
    # An exec keeps the three: so an upgrade in place has them.
    for each in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"):
        assert child[each] == THREE, each


@as_root
def test_a_second_time_is_nothing_new() -> None:
    told, log = run("""
thread()
for _ in range(2):
    drop_to(User.named("nobody"))
tell(task=status("/proc/thread-self/status"))
""")
    assert told["task"]["CapPrm"] == told["task"]["CapAmb"] == THREE
    assert log.count("event=privileges_dropped") == 2


@as_root
@pytest.mark.parametrize(
    ("missing", "kept"),
    [
        ("-net_broadcast", NET_ADMIN | NET_BIND_SERVICE),
        ("-setpcap", THREE),
        ("-all,+net_admin,+setuid,+setgid", NET_ADMIN),
        ("-all,+setuid,+setgid", 0),
    ],
)
def test_root_in_a_container_with_fewer_capabilities(missing: str, kept: int) -> None:
    told, _log = run(
        'drop_to(User.named("nobody")); tell(task=status("/proc/thread-self/status"))',
        *("setpriv", "--bounding-set", missing),
    )
    assert set(told["task"]["Uid"]) == {NOBODY}
    for each in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert told["task"][each] == kept, each


@as_root
@pytest.mark.parametrize("missing", ["-setuid", "-setgid", "-all"])
def test_root_that_cannot_become_another_user_says_so(missing: str) -> None:
    told, _log = run(
        """
try:
    drop_to(User.named("nobody"))
except WgdError as error:
    tell(error=str(error))
""",
        *("setpriv", "--bounding-set", missing),
    )
    assert "nobody" in told["error"]
    assert "CAP_SETUID" in told["error"]


@as_root
def test_an_unprivileged_process_stays_what_it_is_with_less() -> None:
    unprivileged = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    powers = ["--inh-caps=+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"]
    program = 'drop_to(User.named(%r)); tell(task=status("/proc/thread-self/status"))'
    for name, event in (("nobody", "event=privileges_dropped"), ("4711", "event=user_not_changed")):
        told, log = run(program % name, *unprivileged, *powers)
        assert set(told["task"]["Uid"]) == {NOBODY}
        assert told["task"]["CapPrm"] == told["task"]["CapAmb"] == NET_ADMIN
        assert log.count("\n") == 1
        assert event in log
    told, _log = run(program % "nobody", *unprivileged)
    assert told["task"]["CapPrm"] == 0


@as_root
def test_what_did_not_happen_is_noticed() -> None:
    told, _log = run("""
thread()
linux_privileges.become = lambda *_arguments: None
try:
    drop_to(User.named("nobody"))
except WgdError as error:
    tell(error=str(error), tasks=[*tasks()])
""")
    assert "still privileged" in told["error"]
    for task in told["tasks"]:
        assert task in told["error"]


# -- what is imported late -------------------------------------------------------------------------


@as_root
def test_late_imports_work_where_the_user_cannot_read_python() -> None:
    told, _log = run("""
preload.import_rest()
sys.path[:] = []
sys.path_importer_cache.clear()
import wgd.net.netlink
index = wgd.net.netlink.get_route_interface(socket.AF_INET, "127.0.0.1", "127.0.0.1", 0, 0)
addresses = socket.getaddrinfo("localhost", 53)
tell(index=index)
""")
    assert told["index"] > 0


def test_a_package_that_is_missing_is_told() -> None:
    told, _log = run("""
try:
    preload.import_rest("wgd.no_such_module")
except WgdError as error:
    tell(error=str(error))
""")
    assert "wgd.no_such_module" in told["error"]
