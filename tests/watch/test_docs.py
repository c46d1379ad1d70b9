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


def test_promtool_takes_the_alerts(tmp_path: Path) -> None:
    (rules,) = re.findall(r"```yaml\n(groups:.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "rules.yml"
    path.write_text(rules)
    checked = subprocess.run(
        [tool("promtool"), "check", "rules", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
