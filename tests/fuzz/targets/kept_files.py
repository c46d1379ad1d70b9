"""What wgd has written for its successor: the journal of `up`, and the state of a daemon."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.fuzz.target import Input, Target, check_one_line
from tests.fuzz.targets.values_of import HEX, KEYS, lines
from wgd.addresses import Endpoint, Prefix
from wgd.configuration import ControlChange, DeviceChange, DeviceState, PeerState
from wgd.core.endpoints import parse_host
from wgd.errors import ConfigurationError, WgdError
from wgd.quick.config import Hooks
from wgd.quick.dns import Dns
from wgd.quick.errors import QuickError
from wgd.quick.firewall import Firewall
from wgd.quick.journal import Journal, Record, _as_json
from wgd.quick.launch import Daemon
from wgd.quick.steps import Addresses, LinkUp, Mark, Routes, Rules, Step, Sysctl
from wgd.service import recorder
from wgd.service.state import StateFile

# -- the journal -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A directory in memory, if there is one: it is root's alone, as that of journals must be."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def _run_journal(data: bytes) -> None:
    with _directory() as directory:
        path = directory / "wg0.json"
        path.write_bytes(data)
        try:
            journal = Journal.find("wg0", directory)
        except QuickError as error:
            check_one_line(str(error))
            return
        assert journal is not None
        record = journal.record
        assert record.interface == "wg0", "it would undo another interface"
        _check_plain(_as_json(record))
        journal.write()
        again = Journal.find("wg0", directory)
        assert again is not None
        assert again.record == record
        journal.step(Mark("one more"))
        journal.remove()
        assert not list(directory.iterdir())


def _check_plain(document: dict[str, Any]) -> None:
    """What a journal says is used as it is: numbers as numbers, names as names."""
    assert isinstance(document["namespace"], int)
    assert isinstance(document["by_daemon"], bool)
    hooks = [each for commands in document["hooks"].values() for each in commands]
    assert all(isinstance(each, str) for each in (*document["began"], *hooks))
    for step in document["steps"]:
        for name in {"interface", "tool", "value", "before", "name"} & set(step):
            assert isinstance(step[name], str), step
        for name in {"mtu", "mtu_before", "table", "version", "fwmark"} & set(step):
            assert type(step[name]) is int, step
        for name in {"addresses", "networks", "servers", "search"} & set(step):
            assert isinstance(step[name], tuple), step
            assert all(isinstance(each, str) for each in step[name]), step
        for rule in step.get("rules", ()):
            assert len(rule) == 5, step
            assert all(type(each) is int for each in rule[:3]), step


_STEPS: Final[tuple[Step, ...]] = (
    Mark("configuration"),
    Daemon("wg0", ""),
    Addresses("wg0", ("10.0.0.1/24", "fd00::1/64")),
    LinkUp("wg0", 1420, 1500, was_up=False),
    Dns("wg0", "resolvconf", ("9.9.9.9",), ("example.com",)),
    Routes("wg0", 254, ("10.0.0.0/8",)),
    Rules(((4, 32765, 51820, 51820, False), (4, 32764, 254, None, True))),
    Sysctl("net/ipv4/conf/all/src_valid_mark", "1", "0"),
    Firewall("wg0", "nft", 4, 51820, ("10.0.0.1",)),
)


def _journal_seeds() -> Iterable[bytes]:
    hooks = Hooks(pre_up=("a",), post_down=("b", "c"))
    yield json.dumps(_as_json(Record("wg0"))).encode()
    for step in _STEPS:
        yield json.dumps(_as_json(Record("wg0", steps=[step]))).encode()
    record = Record("wg0", 4711, hooks=hooks, began=["PreUp"], steps=list(_STEPS))
    yield json.dumps(_as_json(record)).encode()


_JOURNAL_WORDS: Final = (
    *(f'"{step.kind}"'.encode() for step in _STEPS),
    *(b'"kind": ', b'"interface": ', b'"steps": [', b'"hooks": {', b'"began": []', b'"version": 1'),
    *(
        b'"namespace": ',
        b'"by_daemon": ',
        b"null",
        b"true",
        b"[[[[",
        b"{}",
        b"1e999",
        b"NaN",
        b"-1",
    ),
)

# -- the state -------------------------------------------------------------------------------------


class _Tunnel:
    """What is restored: it takes the hosts of peers only if it has the peers, as a tunnel does."""

    def __init__(self) -> None:
        self.changes: list[DeviceChange | ControlChange] = []
        self.peers: set[bytes] = set()

    async def apply(self, change: DeviceChange) -> None:
        for peer in change.peers:
            (self.peers.discard if peer.remove else self.peers.add)(peer.public_key)
        self.changes.append(change)

    async def control(self, change: ControlChange) -> None:
        for key, host in change.endpoint_hosts:
            parse_host(host)
            if key not in self.peers:
                raise ConfigurationError(errno.ENOENT, "no such peer")
        self.changes.append(change)


def _restored(messages: bytes) -> tuple[list[DeviceChange | ControlChange], tuple[bytes, ...]]:
    tunnel = _Tunnel()
    restoring = recorder.restore(messages, tunnel)
    try:
        restoring.send(None)
        raise AssertionError("it waits, and there is nothing to wait for")
    except StopIteration as ended:
        had_session: tuple[bytes, ...] = ended.value
    assert all(len(key) == 32 for key in had_session)
    return tunnel.changes, had_session


def _run_state_file(data: bytes) -> None:
    given = Input(data)
    kind, place = given.byte(), given.number()
    content = given.rest()
    if kind % 2:
        _run_cut_state(content, place)
        return
    fd = os.memfd_create("wgd-fuzz")
    try:
        os.pwrite(fd, content, 0)
        try:
            state = StateFile.adopt(fd)
        except WgdError as error:
            check_one_line(str(error))
            return
        messages = state.read()
        assert not messages or messages.endswith(b"\n\n")
        assert b"\0" not in messages
        assert messages in content
        changes, had_session = _restored(messages)
        more = b"set=1\nlisten_port=4711\n\n"
        state.append(more)
        again = StateFile.adopt(fd)
        assert again.read() == messages + more
        assert _restored(again.read()) == ([*changes, DeviceChange(listen_port=4711)], had_session)
        again.replace(messages)
        assert StateFile.adopt(fd).read() == messages
    finally:
        os.close(fd)


def _run_cut_state(messages: bytes, place: int) -> None:
    """A daemon that is killed while it writes leaves whole messages, and all that were before."""
    messages = messages.replace(b"\0", b"")
    state = StateFile.create()
    try:
        state.append(messages)
        os.ftruncate(state.fileno(), 16 + min(place, len(messages)))
        left = StateFile.adopt(state.fileno()).read()
        assert messages.startswith(left)
        assert len(left) == messages.rfind(b"\n\n", 0, min(place, len(messages))) + 2 or not left
        whole, _ = _restored(messages)
        part, _ = _restored(left)
        assert whole[: len(part)] == part
    finally:
        state.close()


def _state_seeds() -> Iterable[bytes]:
    state = DeviceState(
        KEYS[0],
        51820,
        7,
        tuple(
            PeerState(
                key,
                KEYS[4],
                Endpoint("192.0.2.1", 51820),
                persistent_keepalive_seconds=25,
                allowed_ips=(Prefix(bytes([10, number, 0, 0]), 16),),
                last_handshake_ns=10**18,
            )
            for number, key in enumerate(KEYS[1:3])
        ),
    )
    messages = b"".join(recorder.snapshot(state, ((KEYS[1], "vpn.example.org:51820"),)))
    messages += recorder.sessions(state, 10**18)
    made = StateFile.create()
    made.replace(messages)
    content = os.pread(made.fileno(), 1 << 20, 0)
    made.close()
    yield b"\0\0\0" + content[:16] + content[4096:]
    header = content[:8] + (16).to_bytes(8, "little")
    yield b"\0\0\0" + header + messages
    yield b"\1\1\0" + messages


_STATE_WORDS: Final = (
    *HEX,
    *(b"set=1\n", b"control=1\n", b"sessions=1\n", b"public_key=", b"private_key=", b"get=1\n\n"),
    *(b"endpoint_host=", b" a.example:1\n", b"replace_peers=true\n", b"\n\n", b"wgd st 1", b"\0"),
    lines(b"endpoint=192.0.2.1:1", b"allowed_ip=10.0.0.0/8", b"remove=true"),
)

TARGETS: Final = (
    Target("journal", _run_journal, ("wgd.quick.journal",), _journal_seeds, _JOURNAL_WORDS),
    Target(
        "state_file",
        _run_state_file,
        ("wgd.service.state", "wgd.service.recorder"),
        _state_seeds,
        _STATE_WORDS,
    ),
)
