"""The journal: what is read is what was written, and what cannot be is said."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.testbed import require
from wgd.quick.config import Hooks
from wgd.quick.dns import Dns
from wgd.quick.errors import QuickError
from wgd.quick.firewall import Firewall
from wgd.quick.journal import Journal, Record, give_back_sysctl, lock
from wgd.quick.launch import Daemon
from wgd.quick.steps import Addresses, LinkUp, Mark, Routes, Rules, Step, Sysctl

STEPS: list[Step] = [
    Mark("configuration"),
    Daemon("wg0", ""),
    Addresses("wg0", ("10.0.0.1/24", "fd00::1/64")),
    LinkUp("wg0", 1420, 1500, was_up=False),
    Dns("wg0", "resolvconf", ("9.9.9.9",), ("example.com",)),
    Routes("wg0", 254, ("10.0.0.0/8",)),
    Rules(((4, 32765, 51820, 51820, False), (4, 32764, 254, None, True))),
    Sysctl("net/ipv4/conf/all/src_valid_mark", "1", "0"),
    Firewall("wg0", "nft", 4, 51820, ("10.0.0.1",)),
]


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    record = Record("wg0", 4711, hooks=Hooks(post_down=("a", "b")))
    journal = Journal(record, tmp_path)
    journal.began("PreUp")
    for step in STEPS:
        journal.step(step)
        found = Journal.find("wg0", tmp_path)
        assert found is not None
        assert found.record == record
    assert record.steps == STEPS
    assert stat.S_IMODE((tmp_path / "wg0.json").stat().st_mode) == 0o600
    journal.remove()
    assert list(tmp_path.iterdir()) == []
    assert Journal.find("wg0", tmp_path) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"version": 2}', '{"version": 1, "steps": []}', "\xff"],
)
def test_a_file_that_is_no_journal(tmp_path: Path, text: str) -> None:
    (tmp_path / "wg0.json").write_text(text, "latin-1")
    with pytest.raises(QuickError, match=r"wg0\.json"):
        Journal.find("wg0", tmp_path)


def test_a_step_of_another_version(tmp_path: Path) -> None:
    journal = Journal(Record("wg0"), tmp_path)
    journal.step(STEPS[0])
    path = tmp_path / "wg0.json"
    for change in ({"kind": "magic"}, {"kind": "mark", "colour": "red"}):
        document = json.loads(path.read_text())
        document["steps"] = [change]
        path.write_text(json.dumps(document))
        with pytest.raises(QuickError, match="is no journal of this wgd"):
            Journal.find("wg0", tmp_path)


def test_the_journal_of_another_interface(tmp_path: Path) -> None:
    Journal(Record("wg1"), tmp_path).write()
    (tmp_path / "wg1.json").rename(tmp_path / "wg0.json")
    with pytest.raises(QuickError, match=r"it is of 'wg1'"):
        Journal.find("wg0", tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"by_daemon": 1}, "by_daemon"),
        ({"namespace": "1"}, "namespace"),
        ({"began": ["PreUp", 1]}, "began"),
        ({"hooks": {"pre_up": "rm"}}, "pre_up"),
        (
            {"steps": [{"kind": "routes", "interface": "wg0", "table": "254", "networks": []}]},
            "table",
        ),
        ({"steps": [{"kind": "rules", "rules": [[4, 1, 2, None]]}]}, "rules"),
        ({"steps": [{"kind": "mark\n", "name": "x"}]}, "mark"),
    ],
)
def test_a_value_of_another_type(tmp_path: Path, change: dict[str, object], named: str) -> None:
    """`down` would come upon it in the middle of its work."""
    Journal(Record("wg0"), tmp_path).write()
    path = tmp_path / "wg0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(QuickError, match=named) as refused:
        Journal.find("wg0", tmp_path)
    assert str(refused.value).isprintable()


def test_a_file_that_is_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "wg0.json").write_text("[" * 100_000)
    with pytest.raises(QuickError, match="is no journal"):
        Journal.find("wg0", tmp_path)


def test_only_roots_journal_is_believed(tmp_path: Path) -> None:
    require()  # root
    journal = Journal(Record("wg0"), tmp_path)
    journal.step(STEPS[0])
    os.chown(tmp_path / "wg0.json", 65_534, 65_534)
    with pytest.raises(QuickError, match="belongs to user 65534, not to root"):
        Journal.find("wg0", tmp_path)


def test_another_user_can_read_a_journal_and_say_that_it_is_done_with() -> None:
    require()  # root
    with TemporaryDirectory() as name:  # a path that everybody may pass
        directory = Path(name)
        directory.chmod(0o755)
        journal = Journal(Record("wg0", steps=[*STEPS]), directory)
        journal.write()
        journal.hand_over(65_534, 65_534)
        if (pid := os.fork()) == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(65_534)
                os.setuid(65_534)
                found = Journal.find("wg0", directory)
                assert found is not None
                assert found.record == journal.record
                found.step(STEPS[0])
                with pytest.raises(PermissionError):
                    (directory / "wg0.json").write_text("{}")
                found.remove()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert Journal.find("wg0", directory) is None
        journal.write()
        assert Journal.find("wg0", directory) is not None
        journal.remove()
        assert list(directory.iterdir()) == []


def test_a_lock_is_held_by_one_and_leaves_no_file(tmp_path: Path) -> None:
    with lock("wg0", tmp_path / "made"):
        with pytest.raises(QuickError, match="somebody else is bringing wg0 up or down"):
            lock("wg0", tmp_path / "made").__enter__()
        with lock("wg1", tmp_path / "made"):
            pass
    assert list((tmp_path / "made").iterdir()) == []
    with lock("wg0", tmp_path / "made"):
        pass


def test_a_lock_of_somebody_killed_is_free(tmp_path: Path) -> None:
    if (pid := os.fork()) == 0:
        lock("wg0", tmp_path).__enter__()
        os._exit(0)
    os.waitpid(pid, 0)
    with lock("wg0", tmp_path):
        pass


def test_a_sysctl_is_put_back_by_the_last_that_needs_it(tmp_path: Path) -> None:
    first, second = Sysctl("net/a", "1", "0"), Sysctl("net/a", "1", "1")
    journals = [Journal(Record(f"wg{n}", 7), tmp_path) for n in range(3)]
    journals[0].step(first)
    journals[1].step(second)
    Journal(Record("elsewhere", namespace=8, steps=[second]), tmp_path).write()
    assert give_back_sysctl(first, journals[0])
    journals[0].remove()
    found = Journal.find("wg1", tmp_path)
    assert found is not None
    assert found.record.steps == [Sysctl("net/a", "1", "0")]
    assert not give_back_sysctl(first, found)


@pytest.fixture
def hostile() -> Iterator[tuple[Path, Path]]:
    """A directory where another user has root write and believe what he likes; and a victim."""
    require()  # root
    with TemporaryDirectory() as name:
        victim = Path(name) / "victim"
        victim.write_text("precious")
        directory = Path(name) / "run"
        directory.mkdir(mode=0o755)
        (directory / ".wg1.json.new").symlink_to(victim)
        (directory / "wg1.lock").symlink_to(Path(name) / "created")
        (directory / "wg1.json").symlink_to("/proc/self/environ")
        os.chown(directory, 65_534, 65_534)
        yield directory, victim


def test_root_does_nothing_in_a_directory_of_others(hostile: tuple[Path, Path]) -> None:
    directory, victim = hostile
    before = sorted(directory.iterdir())
    for change in ("owner", "mode", "link"):
        used = directory
        if change == "mode":
            os.chown(directory, 0, 0)
            directory.chmod(0o1777)
        elif change == "link":
            directory.chmod(0o755)
            used = directory.with_name("link")
            used.symlink_to(directory)
        with pytest.raises(QuickError, match=str(used)):
            lock("wg1", used).__enter__()
        with pytest.raises(QuickError, match=str(used)):
            Journal.find("wg1", used)
        with pytest.raises(QuickError, match=str(used)):
            Journal(Record("wg1"), used).write()
    assert sorted(directory.iterdir()) == before
    assert victim.read_text() == "precious"
    assert not victim.with_name("created").exists()


def test_no_link_is_followed(hostile: tuple[Path, Path]) -> None:
    """A directory that was somebody's before it was root's."""
    directory, victim = hostile
    os.chown(directory, 0, 0)
    with pytest.raises(QuickError):
        lock("wg1", directory).__enter__()
    with pytest.raises(QuickError):
        Journal.find("wg1", directory)
    Journal(Record("wg1"), directory).write()
    assert Journal.find("wg1", directory) is not None
    assert victim.read_text() == "precious"
    assert not victim.with_name("created").exists()
    os.mkfifo(directory / "wg2.json")
    with pytest.raises(QuickError, match=r"wg2\.json is not a file"):
        Journal.find("wg2", directory)


@pytest.mark.parametrize("name", ["kernel/core_pattern", "net/../kernel/core_pattern", "/net/a"])
def test_a_journal_sets_no_sysctl_but_of_the_network(tmp_path: Path, name: str) -> None:
    Journal(Record("wg0", steps=[Sysctl("net/a", "1", "0")]), tmp_path).write()
    path = tmp_path / "wg0.json"
    path.write_text(path.read_text().replace("net/a", name))
    with pytest.raises(QuickError, match=name):
        Journal.find("wg0", tmp_path)


def test_the_directory_is_open_to_all_readers_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        Journal(Record("wg0"), tmp_path / "made").write()
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o755
