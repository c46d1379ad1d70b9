"""iperf3 through the tunnel, from left to right: what the receiver counted."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from processes import BenchmarkError, Process, wait_until
from testbed import Tunnel

_DEFAULT_PORT: Final = 5201
_START_TIMEOUT_SECONDS: Final = 5
# Beyond the seconds of the test. Its control connection goes through the tunnel as well, and has
# to get over what a flood of datagrams did to it.
_END_TIMEOUT_SECONDS: Final = 20


@dataclass(frozen=True)
class Transfer:
    """What a finished test transferred; in a bidirectional one, both ways together.

    `received_seconds` is how long the receivers counted, `sent_seconds` how long the senders sent;
    `retransmissions` are TCP segments.
    """

    received_bytes: int
    received_seconds: float
    sent_bytes: int
    sent_seconds: float
    retransmissions: int = 0

    @classmethod
    def from_json(cls, output: str) -> Self:
        """Read what `iperf3 -c --json` printed; raises BenchmarkError with its own error, if any.

        It says so too if nothing was received.
        """
        try:
            # Warnings come first: of full-size datagrams it thinks that they may not fit.
            result: dict[str, Any] = json.loads(output[output.index("{") :])
            if error := result.get("error"):
                raise BenchmarkError(f"iperf3: {error}")
            end = result["end"]
            received = [end[key] for key in _both_ways("sum_received") if key in end]
            sent = [end[key] for key in _both_ways("sum_sent") if key in end]
            transfer = cls(
                received_bytes=sum(int(sums["bytes"]) for sums in received),
                received_seconds=float(received[0]["seconds"]),
                sent_bytes=sum(int(sums["bytes"]) for sums in sent),
                sent_seconds=float(sent[0]["seconds"]),
                retransmissions=sum(int(sums.get("retransmits", 0)) for sums in sent),
            )
        except (ValueError, LookupError, TypeError) as error:
            raise BenchmarkError(f"iperf3 printed what cannot be read ({error!r})") from error
        if transfer.received_bytes <= 0 or transfer.sent_seconds <= 0:
            raise BenchmarkError("iperf3 got nothing through the tunnel")
        return transfer


class Load:
    """A test that is under way."""

    def __init__(self, tested: Tunnel, seconds: int, server: Process, client: Process) -> None:
        self._tested = tested
        self._timeout_seconds = seconds + _END_TIMEOUT_SECONDS
        self._server = server
        self._client = client

    def is_over(self) -> bool:
        """Whether the client has ended; raises BenchmarkError if a daemon has."""
        self._tested.check_running()
        return self._client.has_ended()

    def wait(self) -> Transfer:
        """Wait for the end and return the figures; raises BenchmarkError if it went wrong."""
        wait_until(self.is_over, self._timeout_seconds, what="the end of iperf3")
        transfer = Transfer.from_json(self._client.output())
        self._client.wait_for_success(0)
        self._server.wait_for_success(_END_TIMEOUT_SECONDS)
        return transfer


@contextmanager
def load(tested: Tunnel, seconds: int, *options: str, port: int = _DEFAULT_PORT) -> Iterator[Load]:
    """Start a test of `seconds` with further `options` of iperf3's client; it ends on leaving."""
    on_port = ("-p", str(port))
    with tested.right.start("iperf3", "-s", "-1", *on_port, output=f"server-{port}.txt") as server:
        what = "iperf3 -s listening"
        wait_until(lambda: _listens(server, port), _START_TIMEOUT_SECONDS, what=what)
        arguments = ("-c", tested.right.address, *on_port, "-t", str(seconds), "--json", *options)
        with tested.left.start("iperf3", *arguments, output=f"client-{port}.json") as client:
            yield Load(tested, seconds, server, client)


def _both_ways(key: str) -> tuple[str, str]:
    return key, f"{key}_bidir_reverse"


def _listens(server: Process, number: int) -> bool:
    """Whether the server accepts; it is not asked by connecting, since it serves only once."""
    server.check_running()
    network = Path(f"/proc/{server.pid}/net")
    sockets = [line.split() for name in ("tcp", "tcp6") for line in _lines(network / name)]
    port, listening = f":{number:04X}", "0A"
    return any(fields[1].endswith(port) and fields[3] == listening for fields in sockets)


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text().splitlines()[1:]
    except OSError:  # no tcp6 where IPv6 is switched off; a server that ended is seen elsewhere
        return []
