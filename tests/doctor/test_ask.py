"""A status whose texts are no addresses is refused whole: later they are taken for granted."""

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.clinic import healthy_device, healthy_peer
from wgd.ctl.doctor import ask as asking
from wgd.ctl.doctor.ask import ask
from wgd.ctl.doctor.facts import Source
from wgd.status import DeviceStatus
from wgd.uapi.client import Client, DeviceError

STRANGE: list[dict[str, Any]] = [
    {"endpoint": "foo"},
    {"endpoint": "1.2.3.4:x"},
    {"endpoint": "1.2.3.4:"},
    {"endpoint": "1.2.3.4:65536"},
    {"endpoint": "1.2.3.4:\u00b2"},
    {"endpoint": "a.example:5"},
    {"endpoint": "[fe80::1%99999999999]:5"},
    {"endpoint": "[fe80::1%\u00b2]:5"},
    {"allowed_ips": ("10.0.0.0/8", "zzz")},
    {"allowed_ips": ("10.0.0.0/33",)},
]


@pytest.fixture(params=[Source.STATUS, Source.WATCH])
def source(request: pytest.FixtureRequest) -> Source:
    """Of another daemon, the third source, the client reads every address."""
    return Source(request.param)


def answers(
    monkeypatch: pytest.MonkeyPatch, source: Source, status: DeviceStatus, directory: Path
) -> Client:
    """Return a client that gets that status, or that may not ask where it is to be watched."""
    client = Client(directory=directory)

    def by_client(_name: str) -> DeviceStatus:
        if source is Source.WATCH:
            raise DeviceError(errno.EACCES, "root's own")
        return status

    monkeypatch.setattr(client, "status", by_client)
    monkeypatch.setattr(asking, "watched_interface", lambda _name: status)
    return client


@pytest.mark.parametrize("changes", STRANGE)
def test_what_is_no_address_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Source, changes: dict[str, Any]
) -> None:
    status = healthy_device(peers=(healthy_peer(), healthy_peer(**changes)))
    client = answers(monkeypatch, source, status, tmp_path)
    with pytest.raises(DeviceError, match="address that is none") as caught:
        ask("wg0", client, [])
    assert caught.value.errno == errno.EPROTO
    assert str(caught.value).isprintable()


def test_addresses_as_a_wgd_gives_them_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Source
) -> None:
    peers = (
        healthy_peer(endpoint="", configured_endpoint="vpn.example.org:51820"),
        healthy_peer(endpoint="[2001:db8::1]:1", allowed_ips=("fd00::/8", "0.0.0.0/0")),
        healthy_peer(endpoint="[fe80::1%eth0]:65535", allowed_ips=()),
        healthy_peer(endpoint="[fe80::1%7]:9"),
    )
    status = healthy_device(peers=peers)
    client = answers(monkeypatch, source, status, tmp_path)
    assert ask("wg0", client, [])[:2] == (source, status)
