"""Minutes of traffic against wireguard-go, to see real rekeys: a program, not a test.

    python -m tests.interop.soak [--seconds 300] [--peer PROGRAM] [--rate 50M] [--they-initiate]

iperf3 keeps the tunnel busy, a ping five times a second shows what a user would notice. It says how
many rekeys there were and which pings were lost, and exits with 1 if any was.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from tests.testbed import Testbed, Tunnel, wait_until

PINGS_PER_SECOND = 5
REKEY_AFTER_SECONDS = 120


def main() -> int:
    """Run the soak and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300, help="how long (default: 300)")
    parser.add_argument("--peer", default="wireguard-go", help="the other end's daemon")
    parser.add_argument("--rate", default="50M", help="iperf3's bits per second, 0 for all it can")
    parser.add_argument("--they-initiate", action="store_true", help="let the other end begin")
    options = parser.parse_args()
    with Testbed(show_logs=False) as bed:
        return soak(bed, options)


def soak(bed: Testbed, options: argparse.Namespace) -> int:
    """Build the tunnel, keep it busy, and report; return the exit status."""
    other = shlex.split(options.peer)
    tunnel = Tunnel.build(
        bed,
        left_command=other if options.they_initiate else None,
        right_command=None if options.they_initiate else other,
        with_preshared_key=True,
    )
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works()
    report = bed.directory / "iperf3.json"
    pings = bed.directory / "ping.txt"
    server = subprocess.Popen(
        right.home.command("iperf3", "--server", "--one-off"), stdout=subprocess.DEVNULL
    )
    wait_until(lambda: "5201" in right.home.run("ss", "--no-header", "-ltn").stdout, what="iperf3")
    with report.open("w") as to_report, pings.open("w") as to_pings:
        client = subprocess.Popen(
            left.home.command(
                *("iperf3", "--client", right.inner4, "--json"),
                *("--time", str(options.seconds), "--bitrate", options.rate),
            ),
            stdout=to_report,
        )
        ping = subprocess.Popen(
            left.home.command(
                *("ping", "-n", "-O", "-D", "-W", "5", "-i", str(1 / PINGS_PER_SECOND)),
                *("-c", str(options.seconds * PINGS_PER_SECOND), right.inner4),
            ),
            stdout=to_pings,
        )
        handshakes = {left.last_handshake_ns(right)}
        deadline = time.monotonic() + options.seconds + 30
        while ping.poll() is None and time.monotonic() < deadline:
            time.sleep(1)
            handshakes.add(left.last_handshake_ns(right))
        for process in (ping, client, server):
            process.terminate()
            process.wait(5)
    return conclude(options.seconds, pings, report, rekeys=len(handshakes) - 1)


def conclude(seconds: int, pings: Path, report: Path, *, rekeys: int) -> int:
    """Print what was seen and return 1 if it is not as it should be."""
    lines = pings.read_text().splitlines()
    answered = sum("bytes from" in line for line in lines)
    lost = seconds * PINGS_PER_SECOND - answered
    try:
        megabits = json.loads(report.read_text())["end"]["sum_received"]["bits_per_second"] / 1e6
    except (ValueError, KeyError):
        megabits = 0.0
    sys.stdout.write(
        f"{seconds} s: {rekeys} rekeys, {lost} of {seconds * PINGS_PER_SECOND} pings lost, "
        f"{megabits:.0f} Mbit/s\n"
    )
    for line in lines:
        if "no answer" in line or "wrong" in line:
            sys.stdout.write(f"  {line}\n")
    expected_rekeys = (seconds - 10) // (REKEY_AFTER_SECONDS + 10)
    if rekeys < expected_rekeys:
        sys.stdout.write(f"expected at least {expected_rekeys} rekeys\n")
    return int(lost > 0 or rekeys < expected_rekeys or megabits == 0)


if __name__ == "__main__":
    sys.exit(main())
