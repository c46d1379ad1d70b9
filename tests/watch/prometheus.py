"""A real Prometheus in a network namespace, asked by its HTTP API; and what Grafana would ask."""

import http.client
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from tests.testbed.namespaces import Namespace
from tests.testbed.waiting import wait_until

ADDRESS, PORT = "127.0.0.1", 19090
RATE_INTERVAL = "5s"
"""What Grafana would choose for a scrape a second."""

DASHBOARD = Path(__file__).parents[2] / "packaging" / "grafana" / "wgd.json"

_TOOLS = Path(__file__).parents[2] / ".venv" / "tools" / "prometheus" / "usr" / "bin"


class Query(NamedTuple):
    """One expression of the dashboard, with the variables of Grafana filled in."""

    panel: int
    legend: str
    expression: str


class Sample(NamedTuple):
    """A point of a series: Unix time in seconds and the value."""

    at: float
    value: float


Series = tuple[dict[str, str], list[Sample]]


def tool(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; without it skip the test, or in CI fail."""
    found = shutil.which(name, path=f"{_TOOLS}:{os.environ.get('PATH', '')}")
    if found is None:
        reason = f"needs the program {name} (scripts/bootstrap gets it)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"in CI this must run, but it {reason}", pytrace=False)
        pytest.skip(reason)
    return found


def dashboard_panels() -> list[dict[str, Any]]:
    """Return the panels of the Grafana dashboard as they are in its file, rows left out."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in panels if panel["type"] != "row"]


def dashboard_queries() -> list[Query]:
    """Return every expression in the Grafana dashboard, for all interfaces."""
    return [
        Query(
            panel["id"],
            target["legendFormat"],
            target["expr"].replace("$__rate_interval", RATE_INTERVAL).replace("$interface", ".+"),
        )
        for panel in dashboard_panels()
        for target in panel["targets"]
    ]


class Prometheus:
    """Scrapes `targets` (HOST:PORT) each second from inside `namespace`; a context manager."""

    def __init__(self, namespace: Namespace, directory: Path, *targets: str) -> None:
        self._namespace = namespace
        self._directory = directory
        self._program = tool("prometheus")
        self._targets = targets

    def __enter__(self) -> "Prometheus":
        config = self._directory / "prometheus.yml"
        jobs = [{"job_name": "wgd", "static_configs": [{"targets": list(self._targets)}]}]
        document = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
        config.write_text(json.dumps(document))  # JSON is YAML
        self._log = (self._directory / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            self._namespace.command(
                self._program,
                f"--config.file={config}",
                f"--storage.tsdb.path={self._directory / 'prometheus'}",
                f"--web.listen-address={ADDRESS}:{PORT}",
            ),
            stdout=self._log,
            stderr=self._log,
        )
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._log.close()

    def wait_until_scraping(self) -> None:
        """Wait until every target was scraped and answered."""

        def is_up() -> bool:
            try:
                ups = self.query("up")
            except OSError:
                return False
            return len(ups) == len(self._targets) and all(
                samples[-1].value == 1 for _, samples in ups
            )

        wait_until(is_up, 30, what="Prometheus scrapes")

    def query(self, expression: str) -> list[Series]:
        """Return the value of an expression now, one sample a series. Raises OSError."""
        result = self._ask("query", query=expression)
        return [(each["metric"], [_sample(each["value"])]) for each in result]

    def query_range(self, expression: str, start: float, end: float) -> list[Series]:
        """Return the values of an expression second by second. Raises OSError."""
        result = self._ask("query_range", query=expression, start=start, end=end, step=1)
        return [(each["metric"], [_sample(value) for value in each["values"]]) for each in result]

    def _ask(self, what: str, **parameters: object) -> list[dict[str, Any]]:
        connection = http.client.HTTPConnection(ADDRESS, PORT, timeout=10)
        try:
            with self._namespace.entered():
                connection.connect()
            connection.request("GET", f"/api/v1/{what}?{urlencode(parameters)}")
            response = connection.getresponse()
            if response.status == http.client.SERVICE_UNAVAILABLE:
                raise ConnectionError("Prometheus is starting")
            answer = json.loads(response.read())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


def _sample(value: list[Any]) -> Sample:
    return Sample(float(value[0]), float(value[1]))
