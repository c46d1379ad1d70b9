"""A tunnel with what its process knows: a complete status, and `control` whole or not at all."""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Collection

import pytest

from wgd import __version__
from wgd.configuration import (
    ControlChange,
    DeviceChange,
    DeviceState,
    PeerChange,
    PeerState,
)
from wgd.errors import ConfigurationError
from wgd.managed import ManagedTunnel
from wgd.status import DeviceStatus

KEY, OTHER, STRANGER = (bytes([n]) * 32 for n in (1, 2, 3))


class FakeTunnel:
    def __init__(self) -> None:
        self.changes: list[DeviceChange] = []
        self.set_error: ConfigurationError | None = None

        self.peers = {KEY, OTHER}

    def get(self) -> DeviceState:
        return DeviceState(peers=tuple(map(PeerState, sorted(self.peers))))

    def has_peers(self, public_keys: Collection[bytes]) -> bool:
        return self.peers.issuperset(public_keys)

    def set(self, change: DeviceChange) -> None:
        if self.set_error is not None:
            raise self.set_error
        self.changes.append(change)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[DeviceState]:
        yield DeviceState()

    async def apply(self, change: DeviceChange) -> None:
        self.set(change)

    def status(self) -> DeviceStatus:
        return DeviceStatus("", listen_port=7, mtu=1420)


class FakeLog:
    level = "error"

    def set_level(self, level: str) -> None:
        self.level = level


def test_the_status_is_completed() -> None:
    status = ManagedTunnel(FakeTunnel(), "wg7", FakeLog()).status()
    assert (status.listen_port, status.mtu) == (7, 1420)
    assert (status.interface, status.version) == ("wg7", __version__)
    assert (status.pid, status.log_level) == (os.getpid(), "error")


def test_get_and_set_are_the_tunnels() -> None:
    tunnel = FakeTunnel()
    managed = ManagedTunnel(tunnel, "wg7")
    managed.set(DeviceChange(fwmark=1))
    assert tunnel.changes == [DeviceChange(fwmark=1)]
    assert managed.get() == tunnel.get()


def test_level_and_hosts_are_changed_and_the_last_host_counts() -> None:
    tunnel, log = FakeTunnel(), FakeLog()
    hosts = ((KEY, "a:1"), (OTHER, "b:1"), (KEY, "c:1"))
    asyncio.run(ManagedTunnel(tunnel, "wg7", log).control(ControlChange("info", hosts)))
    assert log.level == "info"
    (change,) = tunnel.changes
    assert set(change.peers) == {
        PeerChange(KEY, update_only=True, endpoint_host="c:1"),
        PeerChange(OTHER, update_only=True, endpoint_host="b:1"),
    }


def test_for_a_host_the_configuration_with_its_secrets_is_not_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tunnel = FakeTunnel()
    monkeypatch.setattr(tunnel, "get", lambda: pytest.fail("all peers were copied"))
    asyncio.run(ManagedTunnel(tunnel, "wg7").control(ControlChange(endpoint_hosts=((KEY, "a:1"),))))
    assert [peer.public_key for change in tunnel.changes for peer in change.peers] == [KEY]


def test_an_unknown_peer_is_enoent_and_changes_nothing() -> None:
    tunnel, log = FakeTunnel(), FakeLog()
    managed = ManagedTunnel(tunnel, "wg7", log)
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(managed.control(ControlChange("info", ((KEY, "a:1"), (STRANGER, "a:1")))))
    assert caught.value.errno == errno.ENOENT
    assert (tunnel.changes, log.level) == ([], "error")


def test_a_tunnel_that_refuses_leaves_the_level_alone() -> None:
    tunnel, log = FakeTunnel(), FakeLog()
    tunnel.set_error = ConfigurationError(errno.EINVAL, "no")
    with pytest.raises(ConfigurationError):
        asyncio.run(
            ManagedTunnel(tunnel, "wg7", log).control(ControlChange("info", ((KEY, "a:1"),)))
        )
    assert log.level == "error"


def test_without_a_log_of_its_own_the_level_cannot_be_changed_but_hosts_can() -> None:
    tunnel = FakeTunnel()
    managed = ManagedTunnel(tunnel, "wg7")
    assert managed.status().log_level == ""
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(managed.control(ControlChange("info", ((KEY, "a:1"),))))
    assert caught.value.errno == errno.EOPNOTSUPP
    assert tunnel.changes == []
    asyncio.run(managed.control(ControlChange(endpoint_hosts=((KEY, "a:1"),))))
    assert len(tunnel.changes) == 1
