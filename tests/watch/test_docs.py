"""docs/monitoring.md says what is so: each metric is there, and nothing else is."""

import re
import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.watch.prometheus import DASHBOARD, tool
from tests.watch.statuses import NOW_NS, device, peer
from wgd.diagnosis import Failure, FailureReason
from wgd.watch.metrics import render

TEXT = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()

STATUS = device(peer(1, failures=(Failure(FailureReason.NOT_ANSWERED, 1, NOW_NS),)))


def served() -> dict[str, set[str]]:
    """Return the labels of every metric, by the name people write down."""
    families = text_string_to_metric_families(render(STATUS, "")[0].decode())
    return {
        family.name + ("_total" if family.type == "counter" else ""): set().union(
            *(sample.labels for sample in family.samples)
        )
        for family in families
        if not family.name.startswith("process_")
    }


def test_the_table_lists_every_metric_with_its_labels() -> None:
    documented = {}
    (table,) = re.findall(r"^\| metric \|.*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    for names, labels in re.findall(r"^\| (`wgd_[^|]+)\| ([^|]*)\|[^|]*\|$", table, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            documented[name] = {"interface", *re.findall(r"`(\w+)`", labels)}
    exporters = re.findall(r"^\| `(wgd_\w+)` \| `wireguard", TEXT, re.MULTILINE)
    assert len(exporters) == 4
    found = served()
    assert set(exporters) <= found.keys()
    assert {name: documented[name] for name in found} == found
    assert documented.keys() == found.keys()


def test_expressions_name_metrics_that_there_are() -> None:
    known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in served()}
    for text in (TEXT, DASHBOARD.read_text()):
        named = set(re.findall(r"\bwgd_\w+", text)) - {"wgd_exporter"}
        assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= known


CASES = """
rule_files: [rules.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: 'wgd_peer_unanswered_initiations{interface="wg0",public_key="called"}'
        values: '0+3x60'
      - series: 'wgd_peer_failures_total{interface="wg0",public_key="called",reason="not_answered"}'
        values: '0+3x60'
      - series: 'wgd_peer_unanswered_initiations{interface="wg0",public_key="asleep"}'
        values: '19x60'
      - series: 'wgd_peer_failures_total{interface="wg0",public_key="asleep",reason="not_answered"}'
        values: '19x60'
    alert_rule_test:
      - eval_time: 10m
        alertname: WgdPeerDoesNotAnswer
        exp_alerts:
          - exp_labels: {interface: wg0, public_key: called}
"""


def promtool(*words: str, directory: Path) -> None:
    done = subprocess.run(
        [tool("promtool"), *words],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_alerts_and_nobody_who_sleeps_raises_one(tmp_path: Path) -> None:
    (rules,) = re.findall(r"```yaml\n(groups:.*?)```", TEXT, re.DOTALL)
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "cases.yml").write_text(CASES)
    promtool("check", "rules", "rules.yml", directory=tmp_path)
    promtool("test", "rules", "cases.yml", directory=tmp_path)
