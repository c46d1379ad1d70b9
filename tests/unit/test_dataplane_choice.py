"""Which engine is chosen, from what was asked for and what there is; what log and errors say."""

import asyncio
import logging
import re
import sys
from typing import Any

import pytest

from tests.unit.fake_native import forget_face, use_extension
from wgd import __version__, cli
from wgd.clock import VirtualClock
from wgd.dataplane import choice
from wgd.dataplane.choice import (
    Choice,
    DataPlaneName,
    DataPlaneOptions,
    choose,
    choose_for,
)
from wgd.dataplane.portable import PortableDataPlane
from wgd.errors import WgdError
from wgd.extension import INTERFACE_VERSION
from wgd.tun.memory import MemoryTun

AUTO, NATIVE, PORTABLE = DataPlaneName.AUTO, DataPlaneName.NATIVE, DataPlaneName.PORTABLE


class FakeEngine:
    """Enough of `wgd_native.Engine` to be made."""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension is there (a fake one)."""
    use_extension(monkeypatch, FakeEngine)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension is not there, even if it is."""
    use_extension(monkeypatch, None)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# -- choosing --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", [AUTO, NATIVE])
def test_the_native_engine_is_chosen_where_it_is(
    caplog: pytest.LogCaptureFixture, name: DataPlaneName
) -> None:
    with caplog.at_level(logging.INFO):
        chosen = choose(DataPlaneOptions(name, workers=3, offload=False))
    assert chosen == Choice(is_native=True, workers=3, offload=False)
    assert lines(caplog) == ["event=dataplane name=native workers=3 offload=off"]


@pytest.mark.usefixtures("missing")
def test_its_absence_is_logged_once_and_the_portable_engine_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        chosen = choose(DataPlaneOptions(workers=3))
    assert chosen == Choice(is_native=False, workers=1, offload=True)
    assert lines(caplog) == ["event=dataplane name=portable reason='wgd-native is not installed'"]


@pytest.mark.usefixtures("missing")
def test_asked_for_and_not_there_is_an_error_with_its_cure() -> None:
    with pytest.raises(
        WgdError, match=r"--dataplane native: .* not installed: pip install \./native"
    ):
        choose(DataPlaneOptions(NATIVE))


@pytest.mark.parametrize("name", [AUTO, NATIVE])
def test_an_extension_that_does_not_load_is_told_from_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: DataPlaneName
) -> None:
    class Broken:
        def find_spec(self, name: str, *_rest: Any) -> None:
            if name == "wgd_native":
                raise ImportError("undefined symbol: abc")

    monkeypatch.delitem(sys.modules, "wgd_native", raising=False)
    forget_face(monkeypatch)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    if name is NATIVE:
        with pytest.raises(WgdError, match=r"cannot be loaded \(undefined symbol: abc\)"):
            choose(DataPlaneOptions(name))
    else:
        with caplog.at_level(logging.INFO):
            assert not choose(DataPlaneOptions(name)).is_native
        assert "undefined symbol: abc" in caplog.text


@pytest.mark.parametrize("found", [None, INTERFACE_VERSION - 1, INTERFACE_VERSION + 1])
def test_an_extension_of_another_wgd_is_not_used_and_the_log_says_what_helps(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, found: int | None
) -> None:
    use_extension(monkeypatch, FakeEngine, interface_version=found)
    with caplog.at_level(logging.INFO):
        assert choose(DataPlaneOptions(workers=3)) == Choice(is_native=False, workers=1)
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert re.fullmatch(
        rf"event=dataplane name=portable reason='wgd-native 9\.8\.7 does not fit wgd {__version__} "
        rf"\(its interface is {found}, not {INTERFACE_VERSION}\)' cure='pip install .*'",
        line.getMessage(),
    )
    with pytest.raises(WgdError, match=r"--dataplane native: .* does not fit .*: pip install"):
        choose(DataPlaneOptions(NATIVE))
    with pytest.raises(WgdError, match=r"several queues needs .* does not fit .*: pip install"):
        choose_for(QueuedMemoryTun(7, 8, needs_native=True))
    assert choose_for(QueuedMemoryTun(7, needs_native=False)) == Choice(is_native=False)


@pytest.mark.usefixtures("installed")
def test_the_portable_engine_is_used_when_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        chosen = choose(DataPlaneOptions(PORTABLE, offload=False))
    assert chosen == Choice(is_native=False, offload=False)
    assert lines(caplog) == ["event=dataplane name=portable reason='it was asked for'"]
    with pytest.raises(WgdError, match=r"--workers 2 .*--dataplane native"):
        choose(DataPlaneOptions(PORTABLE, workers=2))


@pytest.mark.usefixtures("installed")
def test_elsewhere_than_on_linux_there_is_the_portable_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not choose(DataPlaneOptions()).is_native
    with pytest.raises(WgdError, match="Linux only: use --dataplane portable"):
        choose(DataPlaneOptions(NATIVE))


class QueuedMemoryTun(MemoryTun):
    """What a `LinuxTun` looks like to the choice."""

    has_packet_information = False
    virtio_header_size = 10

    def __init__(self, *queue_fds: int, needs_native: bool) -> None:
        super().__init__()
        self.queue_fds = queue_fds
        self.needs_native = needs_native


@pytest.mark.usefixtures("installed")
def test_a_tun_made_by_others_decides() -> None:
    assert choose_for(MemoryTun()) == Choice(is_native=False)
    assert choose_for(QueuedMemoryTun(7, needs_native=False)) == Choice(is_native=False)
    several = QueuedMemoryTun(7, 8, needs_native=True)
    assert choose_for(several) == Choice(is_native=True, workers=2)


@pytest.mark.usefixtures("installed")
def test_the_chosen_engine_is_made() -> None:
    portable = Choice(is_native=False).make_engine(MemoryTun(), VirtualClock())
    assert isinstance(portable, PortableDataPlane)
    portable.stop()
    native = Choice(is_native=True).make_engine(MemoryTun(), VirtualClock())
    assert type(native).__name__ == "NativeDataPlane"
    loop = asyncio.new_event_loop()
    with pytest.raises(TypeError, match="MemoryTun"):
        native.start(loop)
    loop.close()


def test_choosing_imports_no_engine() -> None:
    # Asked by --help, which shall be quick.
    assert not {"PortableDataPlane", "NativeDataPlane"} & set(vars(choice))


# -- asking ----------------------------------------------------------------------------------------


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: str) -> DataPlaneOptions:
    """Return what the command line makes of these."""
    seen: list[DataPlaneOptions] = []

    def start(options: Any, _ready: object) -> int:
        seen.append(options.dataplane)
        return 0

    monkeypatch.setattr("wgd.daemon.start", start)
    for name in ("WGD_DATAPLANE", "WGD_WORKERS", "WGD_NO_OFFLOAD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        cli.main(["--foreground", *arguments, "wgx"])
    if caught.value.code != 0:
        return DataPlaneOptions(workers=-1)
    return seen[0]


def test_options_and_environment_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = DataPlaneOptions(NATIVE, workers=16, offload=False)
    options = ("--dataplane", "native", "--workers", "16", "--no-offload")
    assert asked(monkeypatch, *options) == expected
    variables = {"WGD_DATAPLANE": "native", "WGD_WORKERS": "16", "WGD_NO_OFFLOAD": "1"}
    assert asked(monkeypatch, **variables) == expected


def test_the_default_is_auto_with_one_worker_and_offloads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch) == DataPlaneOptions(AUTO, workers=1, offload=True)
    empty = {"WGD_DATAPLANE": "", "WGD_WORKERS": "", "WGD_NO_OFFLOAD": "0"}
    assert asked(monkeypatch, **empty) == DataPlaneOptions(AUTO, workers=1, offload=True)


def test_an_option_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"WGD_DATAPLANE": "native", "WGD_WORKERS": "4"}
    options = asked(monkeypatch, "--dataplane", "portable", "--workers", "1", **variables)
    assert options == DataPlaneOptions(PORTABLE, workers=1)


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--dataplane", "fast"], {}, "'fast' (choose from"),
        ([], {"WGD_DATAPLANE": "fast"}, "WGD_DATAPLANE='fast' is no data plane: give one of auto"),
        (["--workers", "0"], {}, "'0' is not a number from 1 to 16"),
        (["--workers", "17"], {}, "'17' is not a number from 1 to 16"),
        (["--workers", "-1"], {}, "--workers"),
        ([], {"WGD_WORKERS": "many"}, "WGD_WORKERS: 'many' is not a number from 1 to 16"),
        ([], {"WGD_WORKERS": "٣"}, "is not a number from 1 to 16"),
    ],
)
def test_what_is_none_is_named_on_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    said: str,
) -> None:
    assert asked(monkeypatch, *arguments, **environment).workers == -1
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
