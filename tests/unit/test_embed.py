"""Tunnels inside another program: start, configure, stop; several at once; UAPI or none."""

import asyncio
import dataclasses
import logging
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.simulation import ip_packet
from wgd.addresses import Endpoint, Prefix
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange
from wgd.embed import EmbeddedTunnel
from wgd.errors import ConfigurationError
from wgd.noise.primitives import PrivateKey
from wgd.tun.memory import MemoryTun
from wgd.uapi.client import AsyncClient
from wgd.uapi.socket_policy import SocketPlace

DOCS = Path(__file__).parents[2] / "docs"


class Inside:
    """A program with tunnels in it; every tunnel is stopped and every TUN released in the end."""

    def __init__(self) -> None:
        self.tunnels: list[EmbeddedTunnel] = []
        self.tuns: list[MemoryTun] = []

    async def start(self, **options: object) -> tuple[EmbeddedTunnel, MemoryTun, bytes]:
        """Start a tunnel with a key; return it, its TUN and its public key."""
        tun, key = MemoryTun(), os.urandom(32)
        self.tuns.append(tun)
        change = DeviceChange(private_key=key)
        tunnel = await EmbeddedTunnel.start(tun, change, **options)  # type: ignore[arg-type] # any
        self.tunnels.append(tunnel)
        return tunnel, tun, PrivateKey(key).public_key

    async def __aenter__(self) -> "Inside":
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for tunnel in self.tunnels:
            await tunnel.stop()
        for tun in self.tuns:
            tun.release()


async def until(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not predicate():  # noqa: ASYNC110 - files and lists tell nobody
            await asyncio.sleep(0.005)


def names(directory: str | Path) -> list[str]:
    return sorted(os.listdir(directory))  # noqa: PTH208 - names are enough


def knows(public_key: bytes, inner: int, port: int) -> DeviceChange:
    allowed = AllowedIpChange(Prefix(bytes([10, 0, 0, inner]), 32))
    endpoint = Endpoint("127.0.0.1", port)
    return DeviceChange(peers=(PeerChange(public_key, endpoint=endpoint, allowed_ips=(allowed,)),))


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "embedding.md").read_text(), re.DOTALL)
    exec(compile(example, "embedding.md", "exec"), {})
    assert capsys.readouterr().out == "4500001400000000401100000a0000010a000002\n"


def test_five_tunnels_in_one_process_carry_packets_to_one_another() -> None:
    async def scenario() -> None:
        async with Inside() as inside:
            started = [await inside.start() for _ in range(5)]
            hub, hub_tun, hub_key = started[0]
            for inner, (tunnel, _tun, key) in enumerate(started[1:], start=2):
                tunnel.set(knows(hub_key, 1, hub.get().listen_port))
                hub.set(knows(key, inner, tunnel.get().listen_port))
            packets = {}
            for inner, (_tunnel, tun, _key) in enumerate(started[1:], start=2):
                packets[inner] = ip_packet(f"10.0.0.{inner}", "10.0.0.1", b"%d" % inner)
                tun.inject(packets[inner])
            received: list[bytes] = []

            def all_there() -> bool:
                received.extend(hub_tun.take())
                return len(received) == 4

            await until(all_there)
            assert sorted(received) == sorted(packets.values())
            assert len(hub.get().peers) == 4

    asyncio.run(scenario())


def test_signals_and_descriptors_are_left_alone() -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in signal.valid_signals()]

    async def scenario() -> None:
        before = handlers()
        async with Inside() as inside:
            tunnel, _tun, _key = await inside.start()
            assert handlers() == before
            await tunnel.stop()
            await tunnel.stop()
            assert handlers() == before

    descriptors = names("/proc/self/fd")
    asyncio.run(scenario())
    assert names("/proc/self/fd") == descriptors


def test_a_bad_configuration_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        tun = MemoryTun()
        too_many = tuple(PeerChange(n.to_bytes(32, "big")) for n in range(1, 65_538))
        with pytest.raises(ConfigurationError):
            await EmbeddedTunnel.start(tun, DeviceChange(peers=too_many))
        tun.release()

    descriptors = names("/proc/self/fd")
    asyncio.run(scenario())
    assert names("/proc/self/fd") == descriptors


def test_the_end_of_the_tun_is_told() -> None:
    async def scenario() -> None:
        reasons: list[str] = []
        async with Inside() as inside:
            _tunnel, tun, _key = await inside.start(on_gone=reasons.append)
            tun.close()
            await until(lambda: reasons)

    asyncio.run(scenario())


def test_with_a_socket_it_is_seen_from_outside(tmp_path: Path) -> None:
    async def scenario() -> None:
        place = SocketPlace(tmp_path, is_sandbox=True)
        async with Inside() as inside:
            tunnel, _tun, key = await inside.start(
                uapi_place=place, interface_name="utun7", tunnel_name="Office"
            )
            assert (tmp_path / "Office.name").read_text() == "utun7\n"
            client = AsyncClient(directory=tmp_path)
            assert (await client.device("utun7")).public_key == key
            status = await client.status("utun7")
            assert (status.interface, status.pid) == ("utun7", os.getpid())
            assert status.dataplane == "portable" and status.is_listening and status.mtu == 1420
            ours = tunnel.status()
            ours = dataclasses.replace(ours, now_ns=status.now_ns, peers=tuple(ours.peers))
            assert status == ours
            await client.configure("utun7", DeviceChange(fwmark=0, listen_port=0))
            await tunnel.stop()
            assert names(tmp_path) == []

    asyncio.run(scenario())


def test_without_its_directory_it_works_and_is_seen_once_that_appears(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        directory = tmp_path / "Library" / "Containers" / "id" / "Data"
        place = SocketPlace(directory, is_sandbox=True)
        async with Inside() as inside:
            tunnel, _tun, key = await inside.start(uapi_place=place, interface_name="utun7")
            assert not (tmp_path / "Library").exists(), "it makes no container"
            assert tunnel.get().private_key != bytes(32)
            for part in (*reversed(directory.parents[:3]), directory):
                part.mkdir()
                await asyncio.sleep(0.02)
            await until((directory / "utun7.sock").is_socket)
            assert (await AsyncClient(directory=directory).device("utun7")).public_key == key

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "uapi_unavailable" in caplog.text


def test_an_obstacle_is_logged_and_the_socket_made_when_it_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        (tmp_path / "utun7.sock").mkdir()
        async with Inside() as inside:
            place = SocketPlace(tmp_path, is_sandbox=True)
            await inside.start(uapi_place=place, interface_name="utun7")
            assert "is not a socket" in caplog.text
            (tmp_path / "utun7.sock").rmdir()
            await until((tmp_path / "utun7.sock").is_socket)

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())


def test_the_loss_of_the_socket_does_not_end_the_tunnel(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        directory = tmp_path / "Data"
        directory.mkdir()
        async with Inside() as inside:
            place = SocketPlace(directory, is_sandbox=True)
            tunnel, _tun, _key = await inside.start(uapi_place=place, interface_name="utun7")
            (directory / "utun7.sock").unlink()
            directory.rmdir()
            await until(lambda: "uapi_lost" in caplog.text)
            assert tunnel.get().listen_port
            directory.mkdir()
            await until((directory / "utun7.sock").is_socket)

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
