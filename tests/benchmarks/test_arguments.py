"""The command line of benchmarks/compare."""

from pathlib import Path

import pytest
from arguments import Arguments, parse


def cases(given: Arguments) -> list[str]:
    return [str(case) for case in given.cases]


def test_the_default_is_the_acceptance() -> None:
    given = parse(None, [])
    assert cases(given) == [
        "tcp1, MTU 1420, v4",
        "udp1392, MTU 1420, v4",
        "udp64, MTU 1420, v4",
        "ping-load, MTU 1420, v4",
    ]
    assert given.pairs == 7
    assert given.implementations is None
    assert given.programs == {}


def test_the_full_matrix() -> None:
    full = cases(parse(None, ["--full"]))
    assert len(full) == len(set(full)) == 7 * 2 * 2
    assert {"bidirectional, MTU 8920, v6", "ping-idle, MTU 1420, v4"} < set(full)


def test_what_is_named_narrows_the_full_matrix() -> None:
    assert cases(parse(None, ["--full", "--workload", "tcp8", "--mtu", "8920"])) == [
        "tcp8, MTU 8920, v4",
        "tcp8, MTU 8920, v6",
    ]


def test_what_is_named_twice_is_measured_once() -> None:
    given = parse(None, ["--workload", "tcp1", "--workload", "tcp1", "--mtu", "1280"])
    assert cases(given) == ["tcp1, MTU 1280, v4"]


def test_implementations_and_programs() -> None:
    given = parse(None, ["--peers", "wgd-native,gotatun", "--gotatun", "/opt/gotatun"])
    assert given.implementations == ("wgd-native", "gotatun")
    assert given.programs == {"gotatun": Path("/opt/gotatun")}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--pairs", "0"], "'0' is not a whole number from 1 up"),
        (["--seconds", "1.5"], "'1.5' is not a whole number"),
        (["--seconds", "²"], "'²' is not a whole number"),
        (["--workload", "tcp2"], "invalid choice: 'tcp2'"),
        (["--mtu", "575"], "'575' is not a whole number from 576 to 65455"),
        (["--mtu", "65456"], "'65456' is not a whole number from 576 to 65455"),
        (["--mtu", "1279", "--family", "v6"], "--mtu 1279: IPv6 needs 1280"),
        (["--family", "v5"], "'v5' is neither v4 nor v6"),
        (["--implementations", "wgd"], "wgd is none of wgd-native, wgd-portable, wireguard-go"),
        (["--implementations", "wireguard-go"], "nothing to compare with wireguard-go"),
        (["--implementations", ""], "nothing to compare with wireguard-go"),
        (["--json", "/dev/null/a.json"], "--json /dev/null/a.json: no such directory"),
        (["--markdown", "/dev/null/a.md"], "--markdown /dev/null/a.md: no such directory"),
        (["--plots", "/dev/null"], "--plots /dev/null: no such directory"),
        (["--pair", "7"], "unrecognized arguments: --pair 7"),
    ],
)
def test_bad_arguments_are_named(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(None, argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
