"""What is written down of a tunnel: whole at any moment, bounded, and enough to restore it."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import (
    NO_KEY,
    AllowedIpChange,
    ControlChange,
    DeviceChange,
    DeviceState,
    PeerChange,
    PeerState,
)
from wgd.errors import ConfigurationError, WgdError
from wgd.platforms import SystemTun
from wgd.service.descriptors import Handed
from wgd.service.notify import ServiceManager
from wgd.service.recorder import Recorder, restore
from wgd.service.state import StateFile
from wgd.service.succession import Succession
from wgd.status import DeviceStatus

PAGE = os.sysconf("SC_PAGESIZE")
SECOND = 10**9


@pytest.fixture
def state() -> Iterator[StateFile]:
    file = StateFile.create()
    yield file
    file.close()


def again(state: StateFile) -> bytes:
    """What the next program reads."""
    return StateFile.adopt(state.fileno()).read()


# -- the file --------------------------------------------------------------------------------------


def test_a_new_one_is_empty_and_not_inherited(state: StateFile) -> None:
    assert again(state) == b""
    assert not os.get_inheritable(state.fileno())
    assert "memfd" in str(Path(f"/proc/self/fd/{state.fileno()}").readlink())


def test_messages_are_added_and_replaced(state: StateFile) -> None:
    state.append(b"set=1\na=1\n\n")
    state.append(b"set=1\nb=2\n\n")
    assert again(state) == b"set=1\na=1\n\nset=1\nb=2\n\n"
    state.replace(b"set=1\nc=3\n\n")
    assert again(state) == b"set=1\nc=3\n\n"
    state.append(b"set=1\nd=4\n\n")
    assert again(state) == b"set=1\nc=3\n\nset=1\nd=4\n\n"


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_message_that_was_cut_off_does_not_count(state: StateFile, cut: int) -> None:
    state.append(b"set=1\na=1\n\n")
    whole = b"set=1\nb=2\n\n"
    state.append(whole)
    os.ftruncate(state.fileno(), os.fstat(state.fileno()).st_size - cut)
    assert again(state) == b"set=1\na=1\n\n"
    successor = StateFile.adopt(state.fileno())
    successor.append(whole)
    assert again(state) == b"set=1\na=1\n\n" + whole


def test_memory_does_not_grow_with_the_number_of_changes(state: StateFile) -> None:
    for n in range(100):
        state.append(b"x" * 3 * PAGE + b"\n\n")
        state.replace(b"%d" % n + b"y" * 2 * PAGE + b"\n\n")
    assert os.fstat(state.fileno()).st_blocks * 512 <= 10 * PAGE
    assert again(state).startswith(b"99y")


def test_nothing_is_left_of_what_was_replaced(state: StateFile) -> None:
    state.append(b"first secret\n\n")
    for n in range(3):
        state.replace(b"secret %d" % n * PAGE + b"\n\n")
    state.replace(b"now\n\n")
    size = os.fstat(state.fileno()).st_size
    assert b"secret" not in os.pread(state.fileno(), size, 0)
    assert again(state) == b"now\n\n"


@pytest.mark.parametrize("written", range(4))
def test_at_every_step_of_a_replacement_there_is_one_or_the_other(
    monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Killed after each write, and in the middle of the long one."""
    state = StateFile.create()
    # A whole page, so that the next could begin right behind it; halves that end with a message.
    old = b"o" * (PAGE - 16 - 2) + b"\n\n"
    new = 2 * (b"n" * PAGE + b"\n\n")
    state.append(old)
    real, calls = os.pwrite, 0

    class Killed(BaseException):
        pass

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        nonlocal calls
        if calls == written:
            if len(data) > 100:
                real(fd, data[: len(data) // 2], offset)
            raise Killed
        calls += 1
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with contextlib.suppress(Killed):
        state.replace(new)
    monkeypatch.undo()
    assert again(state) == (old if written < 2 else new)
    state.close()


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"wgd st 1" + bytes(100))
    for fd in (os.open(tmp_path / "file", os.O_RDWR), os.open("/dev/null", os.O_RDWR)):
        with pytest.raises(WgdError, match="not a memfd"):
            StateFile.adopt(fd)
        os.close(fd)
    for content in (b"", b"something else entirely", b"wgd st 1" + b"\xff" * 8):
        fd = os.memfd_create("foreign")
        os.write(fd, content)
        with pytest.raises(WgdError, match="does not hold the state"):
            StateFile.adopt(fd)
        os.close(fd)


# -- what is in it ---------------------------------------------------------------------------------


class FakeDevice:
    """Keeps the configuration as a device does."""

    def __init__(self) -> None:
        self.state = DeviceState()
        self.hosts: dict[bytes, str] = {}

    def get(self) -> DeviceState:
        return self.state

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[DeviceState]:
        yield self.state

    def settings(self) -> DeviceState:
        return self.state

    def has_peers(self, public_keys: Collection[bytes]) -> bool:
        return {peer.public_key for peer in self.state.peers}.issuperset(public_keys)

    def status(self) -> DeviceStatus:
        return DeviceStatus("wg0")

    async def control(self, change: ControlChange) -> None:
        for public_key, host in change.endpoint_hosts:
            self.hosts[public_key] = host

    async def apply(self, change: DeviceChange) -> None:
        self.set(change)

    def set(self, change: DeviceChange) -> None:
        if change.fwmark == 0xBAD:
            raise ConfigurationError(22, "a mark that nobody likes")
        peers = {} if change.replace_peers else {peer.public_key: peer for peer in self.state.peers}
        for one in change.peers:
            if one.remove:
                peers.pop(one.public_key, None)
                continue
            if one.update_only and one.public_key not in peers:
                continue
            if one.endpoint is not None:
                self.hosts.pop(one.public_key, None)
            if one.endpoint_host is not None:
                self.hosts[one.public_key] = one.endpoint_host
            before = peers.get(one.public_key, PeerState(one.public_key))
            prefixes = () if one.replace_allowed_ips else before.allowed_ips
            keepalive = one.persistent_keepalive_seconds
            peers[one.public_key] = replace(
                before,
                preshared_key=one.preshared_key or before.preshared_key,
                endpoint=one.endpoint or before.endpoint,
                persistent_keepalive_seconds=(
                    before.persistent_keepalive_seconds if keepalive is None else keepalive
                ),
                allowed_ips=(*prefixes, *(ip.prefix for ip in one.allowed_ips)),
            )
        port = self.state.listen_port if change.listen_port is None else change.listen_port or 4711
        self.state = DeviceState(
            self.state.private_key if change.private_key is None else change.private_key,
            port,
            self.state.fwmark if change.fwmark is None else change.fwmark,
            tuple(peers.values()),
        )


def key(n: int) -> bytes:
    return n.to_bytes(32, "big")


def peer(n: int) -> PeerChange:
    return PeerChange(
        key(n),
        preshared_key=key(n + 1000),
        endpoint=Endpoint("fe80::1", 1 + n, 7) if n % 2 else Endpoint("192.0.2.1", 1 + n),
        persistent_keepalive_seconds=n % 3,
        allowed_ips=(
            AllowedIpChange(Prefix.of(bytes((10, 0, n % 256, 0)), 24)),
            AllowedIpChange(Prefix.of(key(n)[16:], 64)),
        ),
    )


async def restored(state: StateFile) -> FakeDevice:
    device = FakeDevice()
    await restore(again(state), device)
    return device


def test_everything_comes_back(state: StateFile) -> None:
    async def scenario() -> None:
        device = FakeDevice()
        recorder = Recorder(asyncio.get_running_loop(), device)
        recorder.set(DeviceChange(private_key=key(5), peers=(peer(1),)))  # before it is written
        recorder.start(state)
        recorder.set(DeviceChange(listen_port=0, fwmark=7, peers=(peer(2), peer(3))))
        recorder.set(DeviceChange(peers=(PeerChange(key(2), remove=True),)))
        with pytest.raises(ConfigurationError):
            recorder.set(DeviceChange(fwmark=0xBAD))
        found = await restored(state)
        assert found.state == device.state
        assert found.state.listen_port == 4711, "the port that was found, not another free one"

    asyncio.run(scenario())


def test_a_removed_key_stays_removed(state: StateFile) -> None:
    async def scenario() -> None:
        recorder = Recorder(asyncio.get_running_loop(), FakeDevice())
        recorder.start(state)
        recorder.set(DeviceChange(private_key=key(5)))
        recorder.set(DeviceChange(private_key=NO_KEY))
        assert (await restored(state)).state.private_key == NO_KEY

    asyncio.run(scenario())


def test_host_names_come_back_until_they_are_replaced(state: StateFile) -> None:
    async def scenario() -> None:
        device = FakeDevice()
        recorder = Recorder(asyncio.get_running_loop(), device)
        recorder.start(state)
        named = [replace(peer(n), endpoint_host=f"host{n}.example:51820") for n in (1, 2, 3, 4)]
        recorder.set(DeviceChange(peers=tuple(named)))
        recorder.set(DeviceChange(peers=(PeerChange(key(1), endpoint=Endpoint("192.0.2.9", 9)),)))
        recorder.set(DeviceChange(peers=(PeerChange(key(2), remove=True),)))
        recorder.set(DeviceChange(peers=(PeerChange(key(3), endpoint_host="other.example:1"),)))
        expected = {key(3): "other.example:1", key(4): "host4.example:51820"}
        assert {k: v for k, v in device.hosts.items() if k != key(2)} == expected
        found = await restored(state)
        assert {k: v for k, v in found.hosts.items() if k != key(2)} == expected
        recorder.finish(state, 0)  # which writes a snapshot
        assert (await restored(state)).hosts == expected

    asyncio.run(scenario())


def test_random_changes_and_snapshots_in_between(state: StateFile) -> None:
    """Snapshots are made in slices, while the changes go on; any moment may be the last."""

    async def scenario() -> None:
        chance = random.Random(5)
        device = FakeDevice()
        recorder = Recorder(asyncio.get_running_loop(), device)
        recorder.set(DeviceChange(listen_port=1))
        recorder.start(state)
        most = 0
        for n in range(300):
            size = 400 if n % 20 == 0 else 3
            peers = [peer(chance.randrange(1500)) for _ in range(size)]
            peers.append(PeerChange(peers[0].public_key, remove=True))
            recorder.set(DeviceChange(fwmark=n, peers=tuple(peers)))
            most = max(most, state.size)
            if n % 50 == 0:
                assert (await restored(state)).state == device.state
            if n % 3 == 0:
                await asyncio.sleep(0)
        assert (await restored(state)).state == device.state
        one = len(again(state)) / max(1, len(device.state.peers))
        assert most < 2_000_000, f"{most} bytes, with {one:.0f} a peer"

    asyncio.run(scenario())


def test_who_had_a_session_is_told(state: StateFile) -> None:
    async def scenario() -> None:
        device = FakeDevice()
        recorder = Recorder(asyncio.get_running_loop(), device)
        now = 1000 * SECOND
        ages = {1: 0, 2: 179, 3: 181, 4: 1000}  # seconds; a session is good for 180
        device.state = DeviceState(
            peers=tuple(
                PeerState(key(n), last_handshake_ns=now - age * SECOND) for n, age in ages.items()
            )
        )
        recorder.finish(state, now)
        successor = FakeDevice()
        assert await restore(again(state), successor) == (key(1), key(2))
        assert [one.public_key for one in successor.state.peers] == [key(n) for n in ages]

    asyncio.run(scenario())


def test_nothing_is_taken_after_the_end(state: StateFile) -> None:
    async def scenario() -> None:
        device = FakeDevice()
        recorder = Recorder(asyncio.get_running_loop(), device)
        recorder.finish(state, 0)
        with pytest.raises(ConfigurationError, match="try again"):
            recorder.set(DeviceChange(fwmark=1))
        assert device.state.fwmark == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "rubbish",
    [
        b"get=1\n\n",
        b"set=1\nno_such=1\n\n",
        b"set=1\nfwmark=2989\n\n",
        b"what\n\n",
        b"sessions=1\nx\n\n",
    ],
)
def test_a_message_not_understood_is_left_out_and_logged(
    rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeDevice()
    asyncio.run(restore(b"set=1\nfwmark=1\n\n" + rubbish + b"set=1\nlisten_port=5\n\n", device))
    assert (device.state.fwmark, device.state.listen_port) == (1, 5)
    assert ("state_refused" in caplog.text) == (not rubbish.startswith(b"sessions"))


def test_no_memory_is_logged_once_and_tried_again(
    state: StateFile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        device = FakeDevice()
        recorder = Recorder(asyncio.get_running_loop(), device)
        recorder.start(state)

        def full(*_arguments: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            for n in range(3):
                recorder.set(DeviceChange(fwmark=n + 1))  # is applied all the same
                await asyncio.sleep(0.01)
        assert device.state.fwmark == 3
        assert caplog.text.count("state_not_kept") == 1
        recorder.set(DeviceChange(listen_port=5))
        await asyncio.sleep(0.01)
        assert (await restored(state)).state == device.state

    asyncio.run(scenario())


@pytest.mark.parametrize("action", ["append", "replace"])
@pytest.mark.parametrize("fails", [True, False], ids=["fails", "is short"])
def test_what_was_written_in_part_never_counts(
    state: StateFile, monkeypatch: pytest.MonkeyPatch, action: str, fails: bool
) -> None:
    state.append(b"set=1\na=1\n\n")
    write = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        """Write two messages, but not the third."""
        written = write(fd, data[: 2 * len(data) // 3], offset)
        if fails:
            raise OSError(28, "No space left on device")
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            getattr(state, action)(b"set=1\nb=2\n\n" * 3)
    assert again(state) == b"set=1\na=1\n\n"
    state.append(b"c\n\n")
    assert again(state) == b"set=1\na=1\n\nc\n\n"


# -- from one wgd to the next ----------------------------------------------------------------------


def open_descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("step", ["the second queue", "the configuration"])
def test_a_refused_hand_over_changes_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    class Queues:
        queue_fds = (0, 1 << 20) if step == "the second queue" else (0, 1)

    async def scenario() -> None:
        device = FakeDevice()
        recorder = Recorder(asyncio.get_running_loop(), device)
        succession = Succession(Handed(), ServiceManager.from_environment({}, os.getpid()))
        before = open_descriptors()
        with monkeypatch.context() as patch:
            if step == "the configuration":
                patch.setattr(StateFile, "replace", full)
            with pytest.raises(OSError):
                succession.hand_over(cast(SystemTun, Queues()), None, recorder, None)
        assert open_descriptors() == before
        recorder.set(DeviceChange(fwmark=1))
        assert device.state.fwmark == 1

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    asyncio.run(scenario())
