"""Where the status is served: addresses, files, groups, and what is said when it cannot be."""

import asyncio
import contextlib
import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.watch.clients import ONE_PEER, Runs, answer_to, free_port, get, request, served
from wgd.errors import WgdError
from wgd.uapi.listener import SocketFile
from wgd.watch.listener import RUN_DIRECTORY, StatusSocketFile, unix_path
from wgd.watch.server import serve_metrics


def test_a_unix_socket_for_a_group(run: Runs, tmp_path: Path) -> None:
    path = tmp_path / "run" / "wg7.sock"
    group = grp.getgrgid(os.getgid()).gr_name

    async def test() -> None:
        async with contextlib.AsyncExitStack() as opened:
            await serve_metrics(opened, f"unix:{path}", group, "wg7", lambda: ONE_PEER)
            found = path.stat()
            assert stat.S_IMODE(found.st_mode) == 0o660
            assert found.st_gid == os.getgid()
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
            assert b"200" in (await answer_to(path, request("GET", "/status")))[:20]
        assert not path.exists()
        assert path.parent.exists()

    run(test())


def test_without_a_group_a_unix_socket_is_its_owners(run: Runs, tmp_path: Path) -> None:
    path = tmp_path / "metrics"

    async def test() -> None:
        async with contextlib.AsyncExitStack() as opened:
            await serve_metrics(opened, f"unix:{path}", None, "wg7", lambda: ONE_PEER)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with pytest.raises(WgdError, match="in use"):
                await serve_metrics(opened, f"unix:{path}", None, "wg7", lambda: ONE_PEER)
            path.unlink()
            path.write_text("somebody else's")
        assert path.read_text() == "somebody else's", "only what is ours is removed"

    run(test())


def test_a_dead_unix_socket_is_replaced(run: Runs, tmp_path: Path) -> None:
    path = tmp_path / "wg7.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def test() -> None:
        async with contextlib.AsyncExitStack() as opened:
            await serve_metrics(opened, f"unix:{path}", None, "wg7", lambda: ONE_PEER)
            assert b"wgd_peers" in await answer_to(path, request())

    run(test())


def test_an_unprivileged_daemon_of_systemd_has_a_directory_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}:/run/other")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unix_path("unix", "wg7") == tmp_path / "wg7.sock"
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert unix_path("unix", "wg7") == RUN_DIRECTORY / "wg7.sock"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert unix_path("unix", "wg7") == RUN_DIRECTORY / "wg7.sock"


@pytest.mark.parametrize("below", [".", "made/by/us"])
def test_root_makes_no_socket_where_others_can_swap_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, below: str
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    is_root = os.geteuid() == 0
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    path = directory / below / "wg7.sock"
    directory.chmod(0o777)
    with pytest.raises(WgdError, match=r"0777.* swap"):
        StatusSocketFile.listen_at(path, None)
    directory.chmod(0o755)
    if is_root:
        file = StatusSocketFile.listen_at(path, None)
        file.remove()
        file.sock.close()
        os.chown(directory, 65534, -1)
    with pytest.raises(WgdError, match="belongs to user"):
        StatusSocketFile.listen_at(directory / "more" / below / "wg7.sock", None)
    assert not (directory / "more").exists()


def test_a_file_that_was_swapped_for_the_socket_is_not_given_to_the_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("root's own")
    victim.chmod(0o600)
    path = tmp_path / "wg7.sock"
    listen = StatusSocketFile._listen

    def swapped(path: Path, interface: str) -> SocketFile:
        file = listen(path, interface)
        path.unlink()
        path.symlink_to(victim)
        return file

    monkeypatch.setattr(StatusSocketFile, "_listen", swapped)
    with pytest.raises(WgdError, match="cannot give"):
        StatusSocketFile.listen_at(path, grp.getgrgid(os.getgid()).gr_name)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("address", "group", "says"),
    [
        ("9586", None, "no address"),
        ("127.0.0.1:", None, "no address"),
        ("127.0.0.1:0", None, "no address"),
        ("127.0.0.1:65536", None, "no address"),
        ("2001:db8::1:9586", None, "no address"),
        ("[127.0.0.1]:9586", None, "no address"),
        ("nobody.invalid:9586", None, "no host"),
        ("a\udcff:9586", None, "no address"),
        (f"{'a' * 70}:9586", None, "no host"),
        ("192.0.2.77:9586", None, "cannot listen"),
        ("unix:", None, "names no file"),
        ("unix:/tmp/", None, "names no file"),
        ("unix:/var/run/wireguard/wg7.sock", None, "for an interface"),
        ("unix:/tmp/../var/run/wireguard/x", None, "for an interface"),
        (f"unix:/tmp/{'x' * 200}", None, "cannot listen|bytes long"),
        ("unix:/tmp/wgd-test-never.sock", "nobody-has-this-group", "no group"),
        ("127.0.0.1:9586", "root", "unix socket"),
    ],
)
def test_a_bad_address_is_told_in_one_line(
    run: Runs, address: str, group: str | None, says: str
) -> None:
    async def test() -> None:
        async with contextlib.AsyncExitStack() as opened:
            with pytest.raises(WgdError, match=says) as caught:
                await serve_metrics(opened, address, group, "wg7", lambda: ONE_PEER)
            assert "\n" not in str(caught.value)

    run(test())


def test_a_port_in_use_is_told(run: Runs) -> None:
    async def test() -> None:
        async with served() as (host, port), contextlib.AsyncExitStack() as opened:
            with pytest.raises(WgdError, match="in use"):
                await serve_metrics(opened, f"{host}:{port}", None, "wg8", lambda: ONE_PEER)

    run(test())


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_other_loopback_addresses(run: Runs, host: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        port = free_port()
        async with contextlib.AsyncExitStack() as opened:
            await serve_metrics(opened, f"{host}:{port}", None, "wg7", lambda: ONE_PEER)
            assert b"wgd_peers" in await asyncio.to_thread(get, host.strip("[]"), port)

    run(test())
    assert "metrics_exposed" not in caplog.text


def test_an_address_others_can_reach_is_warned_of(
    run: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with contextlib.AsyncExitStack() as opened:
            await serve_metrics(opened, f":{free_port()}", None, "wg7", lambda: ONE_PEER)

    run(test())
    assert "event=metrics_exposed" in caplog.text


def test_a_missing_package_is_told_with_its_cure(
    run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    async def test() -> None:
        async with contextlib.AsyncExitStack() as opened:
            with pytest.raises(WgdError, match=r"prometheus_client: pip install 'wgd\[metrics\]'"):
                await serve_metrics(opened, "127.0.0.1:1", None, "wg7", lambda: ONE_PEER)

    run(test())
