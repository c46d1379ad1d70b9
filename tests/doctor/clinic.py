"""What the tests of the doctor share: a healthy tunnel as facts, and visits to real daemons."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from tests.testbed import End, Namespace
from wgd.ctl.doctor.facts import EndpointPath, Facts, Link, Route, System
from wgd.diagnosis import Failure, FailureReason
from wgd.status import DeviceStatus, PeerStatus

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
OWN_KEY = "b3duIGtleSBvd24ga2V5IG93biBrZXkgb3duIGtleSE="
PEER_KEY = "cGVlciBrZXkgcGVlciBrZXkgcGVlciBrZXkgcGVlciE="
OTHER_KEY = "b3RoZXIga2V5IG90aGVyIGtleSBvdGhlciBrZXkgb3Q="


def healthy_peer(**changes: Any) -> PeerStatus:
    """Return a peer that was heard from a second ago, with changes."""
    values: dict[str, Any] = {
        "public_key": PEER_KEY,
        "endpoint": "192.0.2.2:51820",
        "configured_endpoint": "192.0.2.2:51820",
        "allowed_ips": ("10.0.0.2/32",),
        "has_session": True,
        "last_handshake_ns": NOW - 20 * SECOND,
        "last_received_ns": NOW - SECOND,
        "last_sent_ns": NOW - SECOND,
        "received_bytes": 5000,
        "sent_bytes": 5000,
        "received_packets": 50,
        "sent_packets": 50,
    }
    return PeerStatus(**{**values, **changes})


def healthy_device(**changes: Any) -> DeviceStatus:
    """Return a device with that peer, with changes."""
    values: dict[str, Any] = {
        "interface": "wg0",
        "pid": 1,
        "started_ns": NOW - 100 * SECOND,
        "now_ns": NOW,
        "public_key": OWN_KEY,
        "listen_port": 51820,
        "mtu": 1420,
        "is_up": True,
        "is_listening": True,
        "dataplane": "native",
        "offloads": ("tun_gro", "tun_tso", "tun_uso", "udp_gro", "udp_gso"),
        "peers": (healthy_peer(),),
    }
    return DeviceStatus(**{**values, **changes})


def healthy(device: DeviceStatus | None = None, **changes: Any) -> Facts:
    """Return the facts of a device that is well, with changes."""
    way = Route("eth0", 1500)
    values: dict[str, Any] = {
        "interface": "wg0",
        "now_ns": NOW,
        "device": device or healthy_device(),
        "link": Link(7, "wg0", 1420, True, "tun", ("10.0.0.1/24",)),
        "paths": {PEER_KEY: EndpointPath(way, way)},
        "prefix_routes": {"10.0.0.2/32": Route("wg0", 1420)},
        "system": System({"eth0": 0}, False, 212_992),
    }
    return Facts(**{**values, **changes})


def with_peer(**changes: Any) -> Facts:
    """Return the facts of a device whose only peer has changed."""
    return healthy(healthy_device(peers=(healthy_peer(**changes),)))


def silent_peer(*failures: Failure) -> dict[str, Any]:
    """Return the changes of a peer that is called and does not answer."""
    return {
        "has_session": False,
        "last_handshake_ns": 0,
        "last_received_ns": 0,
        "received_bytes": 0,
        "received_packets": 0,
        "unanswered_initiations": 3,
        "failures": (failed(FailureReason.NOT_ANSWERED, 3), *failures),
    }


def failed(reason: FailureReason, count: int = 1, detail: str = "", age: int = 2) -> Failure:
    """Return something that failed `age` seconds ago."""
    return Failure(reason, count, NOW - age * SECOND, detail)


@dataclass(frozen=True)
class Visit:
    """What the doctor said of a real daemon."""

    status: int
    report: dict[str, Any]
    output: str

    def ids(self, *severities: str) -> set[str]:
        """Return the ids of the findings, of all severities or of these."""
        return {
            finding["id"]
            for finding in self.report["findings"]
            if not severities or finding["severity"] in severities
        }

    @property
    def problems(self) -> set[str]:
        """The ids of what does not work."""
        return self.ids("problem")

    def finding(self, finding_id: str) -> dict[str, Any]:
        """Return the one finding of a kind; AssertionError with all that was said without one."""
        found = [each for each in self.report["findings"] if each["id"] == finding_id]
        assert len(found) == 1, f"{len(found)} findings {finding_id!r} in {self.output}"
        return dict(found[0])


def visit(namespace: Namespace, interface: str, *options: str) -> Visit:
    """Let the doctor see an interface from inside a namespace."""
    return visited(namespace, [sys.executable, "-m", "wgd.ctl"], interface, *options)


def visited(namespace: Namespace, command: list[str], interface: str, *options: str) -> Visit:
    """Let a doctor that is started by another command see an interface."""
    done = namespace.run(*command, "doctor", interface, "--json", *options, check=False)
    assert done.returncode in (0, 2), done.stdout + done.stderr
    report = json.loads(done.stdout)[interface]
    assert done.returncode == (2 if report["result"] == "problems" else 0)
    return Visit(done.returncode, report, done.stdout)


def see(end: End, *options: str) -> Visit:
    """Let the doctor see one end of a tunnel."""
    return visit(end.namespace, end.daemon.interface, *options)
