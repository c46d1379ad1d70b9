"""What the socket of a wgd answers beyond the protocol: `status` and `control`."""

import base64
import errno
import json
import signal
import sys

import pytest

from tests.testbed import Testbed, Tunnel, only_wgd, require, wait_until
from tests.testbed.namespaces import run
from wgd import __version__
from wgd.uapi.client import Client, ControlChange, DeviceError

pytestmark = pytest.mark.netns


@only_wgd("status")
def test_a_status_tells_what_the_tunnel_does(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    tunnel.assert_works()
    daemon = tunnel.left.daemon
    status = Client(timeout_seconds=10).status(daemon.interface)
    assert (status.interface, status.version) == (daemon.interface, __version__)
    assert (status.pid, status.log_level) == (daemon.pid, "verbose")
    assert (status.public_key, status.listen_port) == (tunnel.left.keys.public, tunnel.left.port)
    assert status.is_up
    assert status.handshakes.answered >= 1
    (peer,) = status.peers
    assert peer.public_key == tunnel.right.keys.public
    assert peer.has_session
    assert peer.endpoint == tunnel.right.outer(4)
    assert peer.sent_packets > 0
    assert peer.sent_bytes > 0


@only_wgd("control")
def test_the_level_of_the_log_can_be_changed(testbed: Testbed) -> None:
    daemon = testbed.daemon(testbed.namespace(), environment={"LOG_LEVEL": "error"})
    client = Client(timeout_seconds=10)
    client.control(daemon.interface, ControlChange("info"))
    assert client.status(daemon.interface).log_level == "info"
    wait_until(lambda: "event=log_level_changed to=info" in daemon.program.stdout, what="the line")
    daemon.signal(signal.SIGUSR1)
    wait_until(lambda: "to=verbose" in daemon.program.stdout, what="the line of the signal")
    daemon.signal(signal.SIGUSR1)
    wait_until(lambda: daemon.program.stdout.count("to=info") == 2, what="the second signal")
    assert client.status(daemon.interface).log_level == "info"


@only_wgd("control")
def test_wgdctl_shows_and_changes_the_level(testbed: Testbed) -> None:
    daemon = testbed.daemon(testbed.namespace(), environment={"LOG_LEVEL": "error"})

    def level(*words: str, check: bool = True) -> str:
        command = [sys.executable, "-m", "wgd.ctl", "log-level", *words]
        completed = run(*command, check=check)
        return completed.stdout + completed.stderr

    assert level(daemon.interface) == "error\n"
    assert level(daemon.interface, "verbose") == ""
    assert level(daemon.interface) == "verbose\n"
    assert "log_level must be one of" in level(daemon.interface, "loud", check=False)
    assert "Usage: wgdctl log-level" in level(check=False)


@only_wgd("control")
def test_a_control_that_is_refused_changes_nothing(testbed: Testbed) -> None:
    daemon = testbed.daemon(testbed.namespace())
    client = Client(timeout_seconds=10)
    stranger = base64.b64decode(testbed.keys().public)
    with pytest.raises(DeviceError, match="no peer") as caught:
        client.control(daemon.interface, ControlChange("error", ((stranger, "host.example:1"),)))
    assert caught.value.errno == errno.ENOENT
    assert client.status(daemon.interface).log_level == "verbose"
    assert "host.example" not in daemon.program.output


@only_wgd("JSON logs")
def test_every_line_of_a_json_log_is_an_object(testbed: Testbed) -> None:
    environment = {"LOG_LEVEL": "verbose", "WGD_LOG_FORMAT": "json"}
    daemon = testbed.daemon(testbed.namespace(), environment=environment)
    daemon.up()
    wait_until(lambda: "link_up" in daemon.program.stdout, what="the event")
    events = [json.loads(line) for line in daemon.program.stdout.splitlines()]
    assert {event["interface"] for event in events} == {daemon.interface}
    assert {"ready", "link_up"} <= {event["event"] for event in events}
    assert daemon.program.stderr == ""


@pytest.mark.interop
def test_wireguard_go_is_not_a_wgd(testbed: Testbed) -> None:
    require("wireguard-go")
    daemon = testbed.daemon(testbed.namespace(), command=["wireguard-go"])
    client = Client(timeout_seconds=10)
    for call in (
        lambda: client.status(daemon.interface),
        lambda: client.control(daemon.interface, ControlChange("info")),
    ):
        with pytest.raises(DeviceError, match="is not a wgd") as caught:
            call()
        assert caught.value.errno == errno.EOPNOTSUPP
    assert run("wg", "show", daemon.interface).returncode == 0
