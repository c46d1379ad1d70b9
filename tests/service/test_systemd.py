"""The units under real systemd: start, readiness, crash, hang, upgrade, activation, end."""

import signal
from collections.abc import Iterator

import pytest

from tests.service.machine import Machine, require_systemd
from tests.testbed import Daemon, Namespace, Testbed, only_wgd, require, wait_until
from tests.testbed.bed import Keys
from tests.testbed.engines import ENGINES, require_engine

pytestmark = [pytest.mark.netns, pytest.mark.slow, only_wgd("systemd units")]


class Site:
    """A machine with the units installed, joined to a namespace with a peer in it."""

    def __init__(self, bed: Testbed, machine: Machine, home: Namespace, away: Namespace) -> None:
        self.machine, self.home, self.away = machine, home, away
        self.name = bed.interface_name()
        self.service, self.socket = f"wgd@{self.name}.service", f"wgd@{self.name}.socket"
        self.keys, self.peer_keys = bed.keys(), bed.keys()
        self.peer = bed.daemon(away)
        _configure_peer(bed, self.peer, self.peer_keys, self.keys)

    def configuration(self) -> str:
        return (
            f"[Interface]\nPrivateKey = {self.keys.private}\n"
            f"[Peer]\nPublicKey = {self.peer_keys.public}\nEndpoint = 192.0.2.2:51820\n"
            "AllowedIPs = 10.77.0.2/32\n"
        )

    def start(self) -> None:
        assert self.machine.systemctl("start", self.service), self.status()
        self.machine.run("wg", "setconf", self.name, "/dev/stdin", stdin=self.configuration())
        self.home.add_address(self.name, "10.77.0.1/24")
        self.home.ip("link", "set", "dev", self.name, "mtu", "1300", "up")

    def status(self) -> str:
        return self.machine.run("systemctl", "status", self.service, check=False).stdout

    def pid(self) -> int:
        return int(self.machine.show(self.service, "MainPID"))

    def link(self) -> str:
        return self.home.ip("address", "show", "dev", self.name).stdout

    def assert_works(self) -> None:
        ping = self.home.ping("10.77.0.2", count=2)
        assert ping.is_lossless, ping.output

    def wait_for_restart(self, pid: int) -> None:
        wait_until(
            lambda: (
                self.machine.show(self.service, "SubState") == "running"
                and self.pid() not in (0, pid)
            ),
            20,
            what=f"another process; {self.status()}",
        )


def _configure_peer(bed: Testbed, peer: Daemon, keys: Keys, other: Keys) -> None:
    peer.setconf(
        f"[Interface]\nPrivateKey = {keys.private}\nListenPort = 51820\n"
        f"[Peer]\nPublicKey = {other.public}\nAllowedIPs = 10.77.0.1/32\n"
    )
    peer.namespace.add_address(peer.interface, "10.77.0.2/24")
    peer.up()


@pytest.fixture
def site(testbed: Testbed) -> Iterator[Site]:
    require()
    require_systemd()
    home, away = testbed.namespace(), testbed.namespace()
    testbed.link(home, away)
    home.add_address("eth0", "192.0.2.1/24")
    away.add_address("eth0", "192.0.2.2/24")
    with Machine(home) as machine:
        machine.install()
        yield Site(testbed, machine, home, away)


def test_the_life_of_a_unit(site: Site) -> None:
    machine = site.machine
    site.start()
    site.assert_works()
    assert machine.show(site.service, "StatusText") == f"Serving {site.name}"
    link, pid = site.link(), site.pid()

    # It runs as its own user, with one capability.
    status = machine.run("cat", f"/proc/{pid}/status").stdout
    uid = machine.run("id", "-u", "wgd").stdout.strip()
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{kind}:\t{1 << 12:016x}\n" in status
    assert "NoNewPrivs:\t1\n" in status

    # A crash: systemd has kept TUN and state, the socket is its own.
    assert machine.show(site.service, "NFileDescriptorStore") == "2"
    machine.run("kill", "-9", str(pid))
    site.wait_for_restart(pid)
    assert site.link() == link
    site.assert_works()
    assert machine.show(site.service, "NRestarts") == "1"
    assert machine.show(site.service, "NFileDescriptorStore") == "2"

    # An upgrade: the same process.
    pid = site.pid()
    assert machine.systemctl("reload", site.service)
    wait_until(lambda: machine.show(site.service, "SubState") == "running", 20, what="it runs")
    assert site.pid() == pid
    assert site.link() == link
    site.assert_works()
    assert machine.show(site.service, "NFileDescriptorStore") == "2"

    # The end: nothing is left, not even the socket, which would start it again.
    assert machine.systemctl("stop", site.service)
    wait_until(lambda: not site.home.has_interface(site.name), what="the interface's end")
    assert not machine.systemctl("is-failed", site.service)
    assert not machine.systemctl("is-active", site.socket)
    assert machine.run("ls", "/run/wireguard", check=False).stdout == ""


def test_the_first_question_starts_it(site: Site) -> None:
    machine = site.machine
    assert machine.systemctl("start", site.socket)
    assert not machine.systemctl("is-active", site.service)
    mode = machine.run("stat", "-c", "%a %U", f"/run/wireguard/{site.name}.sock").stdout
    assert mode == "600 root\n"
    machine.run("wg", "set", site.name, "fwmark", "11")
    assert machine.systemctl("is-active", site.service)
    assert machine.run("wg", "show", site.name, "fwmark").stdout == "0xb\n"


def test_a_hang_is_noticed_and_mended(site: Site) -> None:
    site.machine.install(WatchdogSec="2")
    site.start()
    site.assert_works()
    link, pid = site.link(), site.pid()
    site.machine.run("kill", f"-{signal.SIGSTOP.name.removeprefix('SIG')}", str(pid))
    site.wait_for_restart(pid)
    assert site.link() == link
    site.assert_works()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_configuration_file_is_all_it_needs(site: Site, engine: str) -> None:
    require_engine(engine)
    machine = site.machine
    machine.install(Environment=f"WGD_DATAPLANE={engine} WGD_METRICS=unix WGD_METRICS_GROUP=wgd")
    text = site.configuration().replace("[Peer]", "Address = 10.77.0.1/24\nMTU = 1300\n[Peer]")
    machine.write(f"/etc/wireguard/{site.name}.conf", text)
    assert machine.systemctl("start", site.service), site.status()
    site.assert_works()
    link, pid = site.link(), site.pid()
    assert "10.77.0.1/24" in link
    metrics = machine.run("stat", "-c", "%a %U %G", f"/run/wgd/{site.name}/{site.name}.sock").stdout
    assert metrics == "660 wgd wgd\n"
    owners = machine.run("stat", "-c", "%a %U", "/run/wgd", f"/run/wgd/{site.name}").stdout
    assert owners == "755 root\n755 wgd\n"
    assert machine.run("ls", f"/run/wgd/{site.name}/{site.name}.json").stdout

    # What was changed since survives a crash, and not a restart.
    machine.run("wg", "set", site.name, "fwmark", "11")
    machine.run("kill", "-9", str(pid))
    site.wait_for_restart(pid)
    assert site.link() == link
    assert machine.run("wg", "show", site.name, "fwmark").stdout == "0xb\n"
    site.assert_works()
    assert machine.systemctl("reload", site.service)
    wait_until(lambda: machine.show(site.service, "SubState") == "running", 20, what="it runs")
    assert machine.run("wg", "show", site.name, "fwmark").stdout == "0xb\n"
    site.assert_works()
    assert machine.systemctl("restart", site.service), site.status()
    assert machine.run("wg", "show", site.name, "fwmark").stdout == "off\n"
    site.assert_works()
    assert machine.systemctl("stop", site.service)
    wait_until(lambda: not site.home.has_interface(site.name), what="the interface's end")
    assert machine.run("ls", "/run/wgd", check=False).stdout == ""
    assert machine.run("ls", "/run/wireguard", check=False).stdout == ""


def test_a_wrong_configuration_file_is_told(site: Site) -> None:
    machine = site.machine
    machine.install(Restart="no")
    machine.write(f"/etc/wireguard/{site.name}.conf", "[Interface]\nColour = blue\n")
    assert not machine.systemctl("start", site.service)
    assert machine.systemctl("is-failed", site.service)
    assert "Colour" in machine.run("cat", "/run/wgd.log").stdout
    assert not site.home.has_interface(site.name)
