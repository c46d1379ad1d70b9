"""What documents name exists: tests, files. No address is invented."""

import importlib
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


@pytest.mark.parametrize(
    "name",
    [
        *("SECURITY.md", "docs/threat-model.md", "docs/security.md", "docs/limits.md"),
        *("docs/dependencies.md", "docs/api.md", "docs/README.md"),
    ],
)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert ((ROOT / name).parent / target).exists(), target
    assert not re.search(r"[\w.]@[\w]+\.\w", text), "no address is ours to give"


def test_every_public_name_exists() -> None:
    text = (ROOT / "docs" / "api.md").read_text().partition("## Python")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `wgd.")]
    assert len(rows) > 8
    for row in rows:
        module = importlib.import_module(row[1].strip().strip("`"))
        for name in re.findall(r"`(\w+)`", row[2]):
            assert getattr(module, name).__doc__ or not callable(getattr(module, name)), name


def test_all_that_the_client_exports_is_public() -> None:
    import wgd.uapi.client

    text = (ROOT / "docs" / "api.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| `wgd.uapi.client`")]
    assert set(re.findall(r"`(\w+)`", row)) == set(wgd.uapi.client.__all__)


def test_examples_of_embedding_and_client_use_public_names_only() -> None:
    public = (ROOT / "docs" / "api.md").read_text()
    for name in ("client.md", "embedding.md"):
        text = (ROOT / "docs" / name).read_text()
        for module, names in re.findall(r"^from (wgd[\w.]*) import (.+)$", text, re.MULTILINE):
            (row,) = [line for line in public.splitlines() if line.startswith(f"| `{module}`")]
            for used in names.split(", "):
                assert f"`{used}`" in row, f"{name}: {module}.{used}"
