"""What documents name exists: tests, files. No address is invented."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`([\w/]+\.py)(?:::(test_\w+))?`")


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = NAMED.findall((ROOT / "docs" / "threat-model.md").read_text())
    assert len(named) > 30
    for path, name in named:
        files = [folder / path for folder in (ROOT / "tests", ROOT / "wgd")]
        file = next((file for file in files if file.is_file()), None)
        assert file is not None, f"there is no {path}"
        assert not name or f"def {name}(" in file.read_text(), f"{path} has no {name}"


@pytest.mark.parametrize("name", ["SECURITY.md", "docs/threat-model.md", "docs/security.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert ((ROOT / name).parent / target).exists(), target
    assert "@" not in text, "no address is ours to give"
