"""The daemon as a process: how it starts, what it refuses, what ends it, what it leaves behind."""

import base64
import fcntl
import os
import re
import shutil
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.testbed import (
    Daemon,
    Launch,
    Namespace,
    Testbed,
    UapiConnection,
    daemon_command,
    only_wgd,
    stays_true,
    wait_until,
)
from tests.testbed.uapi import SOCKET_DIRECTORY, uapi_get

pytestmark = pytest.mark.netns

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000


@pytest.fixture
def namespace(testbed: Testbed) -> Namespace:
    return testbed.namespace()


@pytest.fixture
def daemon(testbed: Testbed, namespace: Namespace) -> Daemon:
    return testbed.daemon(namespace)


def assert_refused(launch: Launch, *mentioned: str) -> None:
    """One line on stderr says what is wrong, and names the thing."""
    assert launch.returncode == 1, launch
    assert launch.stdout == ""
    assert launch.stderr.count("\n") == 1, launch.stderr
    assert launch.stderr.endswith("\n")
    for word in mentioned:
        assert word in launch.stderr


def assert_left_nothing(daemon: Daemon) -> None:
    assert not daemon.socket_path.exists()
    assert not daemon.namespace.has_interface(daemon.interface)


# -- the command line ------------------------------------------------------------------------------


def test_version_is_told(testbed: Testbed, namespace: Namespace) -> None:
    launch = testbed.run_program(namespace, "--version").launched()
    assert launch.returncode == 0
    assert re.search(r"\d+\.\d+", launch.stdout)


@only_wgd("a help text")
def test_help_names_the_interface_argument(testbed: Testbed, namespace: Namespace) -> None:
    launch = testbed.run_program(namespace, "--help").launched()
    assert launch.returncode == 0
    assert "INTERFACE" in launch.stdout
    assert "--foreground" in launch.stdout


@only_wgd("one line that says what is wrong")
@pytest.mark.parametrize("arguments", [[], ["--no-such-option", "wgx"], ["wgx", "wgy"]])
def test_wrong_usage_fails_and_starts_nothing(
    testbed: Testbed, namespace: Namespace, arguments: list[str]
) -> None:
    program = testbed.run_program(namespace, *arguments)
    assert_refused(program.launched(), "--help")
    assert not program.is_running()


@only_wgd("names checked before anything is made")
@pytest.mark.parametrize(
    "name",
    ["", "/", ".", "..", "a/b", "../wgx", "sixteen-bytes-16", "white space", "é" * 8, "wg%d"],
)
@pytest.mark.parametrize("options", [[], ["--foreground"]], ids=["background", "foreground"])
def test_a_bad_name_is_refused(
    testbed: Testbed, namespace: Namespace, name: str, options: list[str]
) -> None:
    assert_refused(testbed.run_program(namespace, *options, name).launched(), name)


def test_a_name_of_fifteen_bytes_is_taken(testbed: Testbed, namespace: Namespace) -> None:
    name = testbed.interface_name().ljust(15, "z")
    daemon = testbed.daemon(namespace, interface=name)
    assert namespace.has_interface(name)
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_end()
    assert_left_nothing(daemon)


# -- what it refuses -------------------------------------------------------------------------------


@only_wgd("one line that says what is wrong")
def test_without_privileges_it_says_so(testbed: Testbed, namespace: Namespace) -> None:
    name = testbed.interface_name()
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = [*unprivileged, *daemon_command()]
    assert_refused(testbed.run_program(namespace, name, command=command).launched())
    assert not (SOCKET_DIRECTORY / f"{name}.sock").exists()


@only_wgd("one line that says what is wrong")
def test_without_dev_net_tun_it_says_so(testbed: Testbed, namespace: Namespace) -> None:
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"]
    command = [*hidden, *daemon_command()]
    launch = testbed.run_program(namespace, testbed.interface_name(), command=command).launched()
    assert_refused(launch, "/dev/net/tun")


@only_wgd("one line that says what is wrong")
def test_the_name_of_another_interface_is_refused(testbed: Testbed, namespace: Namespace) -> None:
    name = testbed.interface_name()
    namespace.ip("link", "add", name, "type", "veth", "peer", "name", "other")
    assert_refused(testbed.run_program(namespace, name).launched(), name)
    assert namespace.has_interface(name)
    assert not (SOCKET_DIRECTORY / f"{name}.sock").exists()


@only_wgd("one line that says what is wrong")
@pytest.mark.parametrize("same_namespace", [True, False])
def test_the_name_of_a_live_daemon_is_refused(
    testbed: Testbed, daemon: Daemon, same_namespace: bool
) -> None:
    namespace = daemon.namespace if same_namespace else testbed.namespace()
    launch = testbed.run_program(namespace, daemon.interface).launched()
    assert_refused(launch, daemon.interface)
    assert daemon.is_running()
    daemon.get()
    assert daemon.namespace.has_interface(daemon.interface)
    assert namespace is daemon.namespace or not namespace.has_interface(daemon.interface)


@only_wgd("a file that is no socket is never deleted")
def test_a_file_in_place_of_the_socket_is_refused(testbed: Testbed, namespace: Namespace) -> None:
    name = testbed.interface_name()
    path = SOCKET_DIRECTORY / f"{name}.sock"
    path.write_text("precious")
    assert_refused(testbed.run_program(namespace, name).launched(), str(path))
    assert path.read_text() == "precious"
    assert not namespace.has_interface(name)


# -- how it starts ---------------------------------------------------------------------------------


def test_the_parent_returns_when_all_is_ready(
    testbed: Testbed, namespace: Namespace, measured: Callable[[str], None]
) -> None:
    daemon = testbed.daemon(namespace, environment={})
    assert namespace.has_interface(daemon.interface)
    assert uapi_get(daemon.socket_path).peers == {}
    assert daemon.launch is not None
    measured(f"the parent returned after {daemon.launch.seconds:.2f} s")
    assert daemon.launch.seconds < 3


@only_wgd("a silent start")
def test_in_the_background_it_says_nothing(testbed: Testbed, namespace: Namespace) -> None:
    daemon = testbed.daemon(namespace, environment={})
    daemon.wg("set", "peer", testbed.keys().public, "allowed-ips", "10.0.0.0/8")
    daemon.up()
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_end()
    assert daemon.program.output == ""


def test_in_the_background_it_lets_go_of_the_callers_pipes(
    testbed: Testbed, namespace: Namespace
) -> None:
    # A shell's $(wgd wg0) would hang if the daemon kept its pipe.
    name = testbed.interface_name()
    namespace.run(*daemon_command(), name, env={"PATH": os.environ["PATH"]}, timeout_seconds=10)
    assert (SOCKET_DIRECTORY / f"{name}.sock").is_socket()


@pytest.mark.parametrize("umask", ["000", "077"])
def test_the_socket_is_for_its_owner_only(
    testbed: Testbed, namespace: Namespace, umask: str
) -> None:
    command = ["sh", "-c", f'umask {umask}; exec "$@"', "sh", *daemon_command()]
    daemon = testbed.daemon(namespace, command=command)
    status = daemon.socket_path.stat()
    assert status.st_uid == os.geteuid()
    assert stat.S_IMODE(status.st_mode) in (0o600, 0o700)


def test_the_socket_directory_is_made_when_missing(testbed: Testbed, namespace: Namespace) -> None:
    # In a mount namespace of its own, so that nobody else misses /run.
    run_directory = Path("/var/run").resolve()
    script = f'umask 022; mount -t tmpfs none {run_directory} && exec "$@"'
    program = testbed.run_program(
        namespace,
        name := testbed.interface_name(),
        command=["unshare", "--mount", "sh", "-c", script, "sh", *daemon_command()],
    )
    assert program.launched().returncode == 0, program.output
    pid = Daemon(namespace, name, program).pid
    directory = Path(f"/proc/{pid}/root{run_directory}/wireguard")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    assert (directory / f"{name}.sock").is_socket()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not program.is_running(), what="the daemon's end")


def test_a_stale_socket_is_taken_over(testbed: Testbed, namespace: Namespace) -> None:
    name = testbed.interface_name()
    path = SOCKET_DIRECTORY / f"{name}.sock"
    path.parent.mkdir(mode=0o755, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    daemon = testbed.daemon(namespace, interface=name)
    assert daemon.get().peers == {}


def test_after_a_kill_it_starts_again(testbed: Testbed, daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.wait_for_end()
    # A daemon that gives root up (WGD_USER) has somebody who removes it even then.
    assert daemon.socket_path.exists() == (not os.environ.get("WGD_USER"))
    again = testbed.daemon(daemon.namespace, interface=daemon.interface)
    assert again.get().peers == {}


@pytest.mark.parametrize(
    ("options", "environment"),
    [(["-f"], {}), (["--foreground"], {}), ([], {"WG_PROCESS_FOREGROUND": "1"})],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_stays_the_callers_child(
    testbed: Testbed,
    namespace: Namespace,
    options: list[str],
    environment: dict[str, str],
    number: signal.Signals,
) -> None:
    name = testbed.interface_name()
    program = testbed.run_program(namespace, *options, name, environment=environment)
    daemon = Daemon(namespace, name, program)
    wait_until(daemon.socket_path.is_socket, what="the socket")
    daemon.get()
    assert daemon.pid == program.process.pid
    daemon.signal(number)
    assert program.launched(timeout_seconds=5).returncode == 0
    assert_left_nothing(daemon)


def test_foreground_output_depends_on_log_level(testbed: Testbed, namespace: Namespace) -> None:
    outputs = {}
    for level in ("verbose", "debug", "error", "silent"):
        name = testbed.interface_name()
        program = testbed.run_program(namespace, "-f", name, environment={"LOG_LEVEL": level})
        daemon = Daemon(namespace, name, program)
        wait_until(daemon.socket_path.is_socket, what="the socket")
        daemon.wg("set", "listen-port", "0")
        daemon.up()
        daemon.signal(signal.SIGTERM)
        program.launched()
        outputs[level] = program.stdout
    assert outputs["verbose"]
    assert outputs["debug"]
    assert outputs["silent"] == ""


# -- what it is handed -----------------------------------------------------------------------------


@pytest.fixture
def tun(testbed: Testbed, namespace: Namespace, tun_flags: int) -> Iterator[tuple[str, int]]:
    """A TUN made by somebody else: name and file descriptor."""
    name = testbed.interface_name()
    with namespace.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), tun_flags))
    yield name, fd
    if os.fstat(fd).st_rdev:
        os.close(fd)


@pytest.mark.parametrize(
    "tun_flags",
    [IFF_TUN | IFF_NO_PI, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR],
    ids=["plain", "vnet_hdr"],
)
@pytest.mark.parametrize("options", [[], ["-f"]], ids=["background", "foreground"])
def test_a_handed_tun_is_used(
    testbed: Testbed, namespace: Namespace, tun: tuple[str, int], options: list[str], engine: str
) -> None:
    name, fd = tun
    environment = {"WG_TUN_FD": str(fd), "WGD_DATAPLANE": engine}
    program = testbed.run_program(namespace, *options, name, environment=environment, pass_fds=[fd])
    daemon = Daemon(namespace, name, program)
    wait_until(daemon.socket_path.is_socket, what=f"the socket; {program.output}")
    daemon.up()
    namespace.add_address(name, "10.77.0.1/24")
    assert namespace.ping("10.77.0.1", count=1).is_lossless
    namespace.ip("link", "delete", "dev", name)
    daemon.wait_for_end()
    assert not daemon.socket_path.exists()


@pytest.mark.parametrize("options", [[], ["-f"]], ids=["background", "foreground"])
def test_a_handed_socket_is_used(
    testbed: Testbed, namespace: Namespace, options: list[str]
) -> None:
    name = testbed.interface_name()
    path = SOCKET_DIRECTORY / f"{name}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        inode = path.stat().st_ino
        fd = listener.fileno()
        environment = {"WG_UAPI_FD": str(fd), "LOG_LEVEL": "verbose"}
        program = testbed.run_program(
            namespace, *options, name, environment=environment, pass_fds=[fd]
        )
        daemon = Daemon(namespace, name, program)
        if not options:
            program.launched()
        assert daemon.get().peers == {}
        assert path.stat().st_ino == inode
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_end()


@only_wgd("one line that says what is wrong")
@pytest.mark.parametrize("variable", ["WG_TUN_FD", "WG_UAPI_FD"])
@pytest.mark.parametrize("value", ["-1", "x", "999", "0", "4294967296", "9" * 20])
def test_a_useless_descriptor_is_refused(
    testbed: Testbed, namespace: Namespace, variable: str, value: str
) -> None:
    name = testbed.interface_name()
    launch = testbed.run_program(namespace, name, environment={variable: value}).launched()
    assert_refused(launch, variable, value if value != "0" else "")


@pytest.mark.parametrize("variable", ["WG_TUN_FD", "WG_UAPI_FD"])
def test_an_empty_descriptor_variable_is_none(
    testbed: Testbed, namespace: Namespace, variable: str
) -> None:
    assert testbed.daemon(namespace, environment={variable: ""}).get() is not None


# -- the descriptors it inherits -------------------------------------------------------------------


def start_by_shell(
    testbed: Testbed, namespace: Namespace, redirections: str, *options: str, **environment: str
) -> Daemon:
    """Start the daemon from a shell that closes or redirects its descriptors."""
    name = testbed.interface_name()
    program = testbed.run_program(
        namespace,
        command=["sh", "-c", f'exec "$@" {redirections}', "sh", *daemon_command(), *options, name],
        environment=environment,
    )
    return Daemon(namespace, name, program)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_do_not_hurt(
    testbed: Testbed, namespace: Namespace, closed: str
) -> None:
    background = start_by_shell(testbed, namespace, closed)
    assert background.program.launched().returncode == 0
    foreground = start_by_shell(testbed, namespace, closed, "-f")
    for daemon in (background, foreground):
        wait_until(daemon.socket_path.is_socket, what="the socket")
        for number in (0, 1, 2):
            assert "eventpoll" not in str(Path(f"/proc/{daemon.pid}/fd/{number}").readlink())
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_end()
        assert_left_nothing(daemon)
    assert foreground.program.launched().returncode == 0


@only_wgd("a log that nobody reads stops nothing")
def test_a_stalled_reader_of_the_log_stops_nothing(
    testbed: Testbed, namespace: Namespace, tmp_path: Path
) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # and never reads
    try:
        daemon = start_by_shell(testbed, namespace, f">{pipe}", "-f", LOG_LEVEL="verbose")
        wait_until(daemon.socket_path.is_socket, what="the socket")
        with UapiConnection(daemon.socket_path) as connection:
            for _ in range(3000):  # each makes a log line; the pipe holds 64 KiB
                assert connection.request("set=1\nfoo=1\n\n") == ["errno=-22"]
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_end()
        assert_left_nothing(daemon)
    finally:
        os.close(reader)


def test_silent_in_the_background_lets_go_of_the_callers_output(
    testbed: Testbed, namespace: Namespace
) -> None:
    daemon = testbed.daemon(namespace, environment={"LOG_LEVEL": "silent"})
    for number in (1, 2):
        assert str(Path(f"/proc/{daemon.pid}/fd/{number}").readlink()) == "/dev/null"


@only_wgd("an orderly end")
def test_the_end_of_its_terminal_ends_it_in_the_foreground(
    testbed: Testbed, namespace: Namespace
) -> None:
    daemon = start_by_shell(testbed, namespace, "", "-f")
    wait_until(daemon.socket_path.is_socket, what="the socket")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_end()
    assert_left_nothing(daemon)


# -- what ends it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(daemon: Daemon, number: signal.Signals) -> None:
    daemon.signal(number)
    daemon.wait_for_end()
    assert_left_nothing(daemon)


@pytest.mark.parametrize("is_up", [True, False])
def test_deletion_of_the_tun_ends_it(daemon: Daemon, is_up: bool) -> None:
    if is_up:
        daemon.up()
    daemon.namespace.ip("link", "delete", "dev", daemon.interface)
    daemon.wait_for_end()
    assert_left_nothing(daemon)


def test_deletion_of_a_moved_tun_ends_it(testbed: Testbed, daemon: Daemon) -> None:
    elsewhere = testbed.namespace()
    daemon.ip("netns", elsewhere.name)
    elsewhere.ip("link", "delete", "dev", daemon.interface)
    daemon.wait_for_end()
    assert_left_nothing(daemon)


def test_removal_of_its_socket_ends_it(daemon: Daemon) -> None:
    daemon.socket_path.unlink()
    daemon.wait_for_end()
    assert_left_nothing(daemon)


@only_wgd("a renamed socket counts as removed")
def test_renaming_its_socket_ends_it(testbed: Testbed, daemon: Daemon) -> None:
    daemon.socket_path.rename(SOCKET_DIRECTORY / f"{testbed.interface_name()}.sock")
    daemon.wait_for_end()
    assert_left_nothing(daemon)


@only_wgd("the socket of somebody else is left alone")
def test_replacing_its_socket_ends_it_and_spares_the_new_one(
    testbed: Testbed, daemon: Daemon
) -> None:
    theirs = testbed.directory / "theirs.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(theirs))
        listener.listen()
        shutil.move(theirs, SOCKET_DIRECTORY / f".{daemon.interface}.new")
        (SOCKET_DIRECTORY / f".{daemon.interface}.new").rename(daemon.socket_path)
        inode = daemon.socket_path.stat().st_ino
        daemon.wait_for_end()
        assert daemon.socket_path.stat().st_ino == inode
    assert not daemon.namespace.has_interface(daemon.interface)


@only_wgd("a change of mode or owner means nothing")
def test_chmod_and_chown_of_the_socket_do_not_end_it(daemon: Daemon) -> None:
    daemon.socket_path.chmod(0o660)
    os.chown(daemon.socket_path, 0, 65534)
    os.utime(daemon.socket_path)
    stays_true(daemon.is_running, 0.5, what="the daemon runs")
    daemon.get()
    daemon.socket_path.unlink()
    daemon.wait_for_end()


def test_other_files_in_the_directory_mean_nothing(testbed: Testbed, daemon: Daemon) -> None:
    other = SOCKET_DIRECTORY / f"{testbed.interface_name()}.sock"
    other.touch()
    other.unlink()
    stays_true(daemon.is_running, 0.3, what="the daemon runs")
    daemon.get()


@only_wgd("no client holds it up")
def test_it_ends_while_a_client_is_connected(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket_path))
        client.sendall(b"set=1\nlisten_port=")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_end()
    assert_left_nothing(daemon)


@pytest.mark.alone
@only_wgd("no polling")
def test_an_idle_daemon_does_not_wake_up(daemon: Daemon) -> None:
    daemon.up()

    def switches() -> int:
        tasks = Path(f"/proc/{daemon.pid}/task").iterdir()
        text = "\n".join((task / "status").read_text() for task in tasks)
        return sum(map(int, re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE)))

    # What follows the start may take a moment; after that nothing happens at all.
    def is_quiet_for_a_second() -> bool:
        before = switches()
        time.sleep(1)
        return switches() == before

    wait_until(is_quiet_for_a_second, 5, what="a second without a wake-up")


# -- what it says ----------------------------------------------------------------------------------


@only_wgd("secrets stay out of the log even in lines that make no sense")
def test_no_secret_is_ever_logged(testbed: Testbed, daemon: Daemon) -> None:
    """The testbed checks all output at its end; this feeds it every kind of secret."""
    keys, other, preshared = testbed.keys(), testbed.keys(), testbed.preshared_key()
    daemon.up()
    daemon.setconf(
        f"[Interface]\nPrivateKey = {keys.private}\n[Peer]\nPublicKey = {other.public}\n"
        f"PresharedKey = {preshared}\nAllowedIPs = 10.0.0.0/8\nEndpoint = 127.0.0.1:9\n"
        "PersistentKeepalive = 1\n"
    )
    private_hex, preshared_hex = (base64.b64decode(key).hex() for key in (keys.private, preshared))
    for lines in (
        f"private_key={private_hex}0\n",
        f"private_key {private_hex}\n",
        f"{private_hex}\n",
        f"no_such_key={private_hex}\n",
        f"preshared_key={preshared_hex}\n",
        f"public_key={private_hex}\npreshared_key={preshared_hex}\nendpoint=x\n",
    ):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(daemon.socket_path))
            client.sendall(f"set=1\n{lines}\n".encode())
            assert client.recv(64) != b"errno=0\n\n"
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_end()
