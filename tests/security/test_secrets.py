"""No class shows a key in its repr, and none that comes from outside is compared in haste.

Both look at all classes and all source, so that new code is held to it as well.
"""

import ast
import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import wgd
from wgd.quick.lines import read

ROOT = Path(__file__).parents[2]

# Names of values that must not be seen: private, preshared and session keys, and what leads there.
SECRET = re.compile(
    r"private_key|preshared|static_static|ephemeral|chaining|secret|transcript|^hash_$"
    r"|(send|receive|session|cookie|mac1)_key|^cookie$|^plaintext$"
)
# A `PrivateKey` shows "PrivateKey(...)"; that is tested with it. Public ones go over the wire.
SAFE_TYPES = ("PrivateKey", "bool", "_Transcript", "Transcript")


def classes() -> Iterator[type]:
    seen = set()
    for module in pkgutil.walk_packages(wgd.__path__, "wgd."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__module__.startswith("wgd") and value not in seen:
                seen.add(value)
                yield value


def test_no_field_that_holds_a_secret_is_in_a_repr() -> None:
    found = [
        f"{cls.__module__}.{cls.__qualname__}.{field.name}"
        for cls in classes()
        if dataclasses.is_dataclass(cls)
        for field in dataclasses.fields(cls)
        if field.repr
        and SECRET.search(field.name)
        and not str(getattr(field.type, "__name__", field.type)).endswith(SAFE_TYPES)
    ]
    assert found == []


def test_no_named_tuple_holds_a_secret() -> None:
    found = [
        f"{cls.__module__}.{cls.__qualname__}.{name}"
        for cls in classes()
        for name in getattr(cls, "_fields", ())
        if SECRET.search(name)
    ]
    assert found == []


def test_a_line_of_a_file_does_not_show_its_key() -> None:
    key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
    (section, line) = read(f"[Interface]\nPrivateKey = {key}\n".encode())
    assert key in line.text.decode()
    assert key not in repr(line)
    assert repr(section) == "Line(number=1, key=b'')"


# -- comparisons -----------------------------------------------------------------------------------

# What is computed from a secret and comes from outside as well.
COMPARED = re.compile(
    r"mac[12]?\b|_mac\b|\btag\b|cookie|secret|private_key|preshared|chaining|static_static"
    r"|(send|receive|session)_key|hash_"
)
# Each of these compares what root has configured with zeros, or with what root had configured.
ALLOWED = {
    "wgd/core/device.py: private_key != NO_KEY",
    "wgd/core/device.py: private_key == self._private_key",
    "wgd/core/device_status.py: state.preshared_key != NO_KEY",
}
# What reads datagrams. Elsewhere (files, the UAPI) only root gives keys, and sees them.
FOLDERS = ("noise", "core", "dataplane")


def comparisons() -> Iterator[str]:
    for folder in FOLDERS:
        for file in sorted((ROOT / "wgd" / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Compare) and any(
                    isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn)
                    for operator in node.ops
                ):
                    yield f"{file.relative_to(ROOT)}: {ast.unparse(node)}"


def test_nothing_that_depends_on_a_secret_is_compared_with_an_operator() -> None:
    found = {text for text in comparisons() if COMPARED.search(text.partition(": ")[2])}
    assert found - ALLOWED == set()


def test_that_lint_sees_what_it_is_for() -> None:
    for text in ("mac1 == expected", "message[-MAC_SIZE:] != mac(key, data)", "cookie in cookies"):
        assert COMPARED.search(text)
    assert any("self._identity.public_key" in text for text in comparisons())


def test_the_engine_compares_no_mac_with_an_operator() -> None:
    operator = re.compile(
        r"(\bmacs?\b|\bmac[12]\b|_mac\b|\btag\b|\bcookie\b).*(==|!=)|(==|!=).*\bmac"
    )
    sources = [*(ROOT / "native/engine/src").rglob("*.rs"), *(ROOT / "native/src").rglob("*.rs")]
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in sources
        for line in file.read_text().partition("#[cfg(test)]")[0].splitlines()
        if operator.search(line.partition("//")[0])
    ]
    assert found == []
    assert any("verify_slice" in file.read_text() for file in sources)
