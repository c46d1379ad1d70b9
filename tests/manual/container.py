"""A Dockerfile done by hand: its steps in plain Debian directories, its program in namespaces.

No Docker is needed. What stands in for the base images is Debian from debootstrap, and for Rust the
toolchain of this machine. Network access is this machine's: its resolver, certificates and settings
of apt and pip are lent to the steps, and are no part of the result.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "packaging" / "docker" / "Dockerfile"

# What Docker gives to a container, and what `--cap-add NET_ADMIN` adds.
CAPABILITIES: Final = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("net_bind_service", "net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
    "net_admin",
)

_LENT: Final = ("/etc/resolv.conf", "/etc/hosts")
_CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
_LENT_DIRECTORY: Final = "/lent"  # packages would stumble over files that are theirs
_LENT_VARIABLES: Final = re.compile(r"PIP_\w+|SSL_\w+|\w+_CA_BUNDLE|\w+_proxy", re.IGNORECASE)
_RUST: Final = "/usr/local/rust"
_STEP_SECONDS: Final = 900


@dataclass
class Stage:
    """What follows a FROM: words and arguments of the instructions."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def arguments(self, word: str) -> list[str]:
        return [text for each, text in self.instructions if each == word]

    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for text in self.arguments("ENV") for pair in [text])


def parse(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        else:
            stages[-1].instructions.append((word, rest.strip()))
    return stages


class Builder:
    """Makes the directory of each stage below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._debian = directory / "debian"
        self._roots: dict[str, Path] = {}

    def build(self, stages: Sequence[Stage]) -> Path:
        """Do all stages and return the directory of the last one."""
        self._bootstrap()
        for number, stage in enumerate(stages):
            root = self._directory / f"stage{number}"
            _run("cp", "--archive", "--reflink=auto", self._debian, root)
            self._roots[stage.name] = root
            self._do(stage, root)
        return root

    def _bootstrap(self) -> None:
        mirror = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: bookworm")
        _run("debootstrap", "--variant=minbase", "bookworm", self._debian, mirror.split("\n")[0])
        settings = _run("apt-config", "dump", "--no-empty", "Acquire")
        (self._debian / "etc/apt/apt.conf.d/99lent").write_text(settings)

    def _do(self, stage: Stage, root: Path) -> None:
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        directory = Path("/")
        for word, text in stage.instructions:
            if word == "ENV":
                name, _, value = text.partition("=")
                environment[name] = value
            elif word == "WORKDIR":
                directory = Path(text)
                (root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                self._copy(shlex.split(text), root, directory)
            elif word == "RUN":
                self._step(text, root, directory, environment, with_rust="rust:" in stage.base)

    def _copy(self, words: list[str], root: Path, directory: Path) -> None:
        source = ROOT
        if words[0].startswith("--from="):
            source = self._roots[words.pop(0).removeprefix("--from=")]
        *names, target = words
        into = root / str(directory / target).lstrip("/")
        for name in names:
            path = source / name.lstrip("/")
            if path.is_dir():
                shutil.copytree(path, into, symlinks=True, ignore=_ignored, dirs_exist_ok=True)
            else:
                shutil.copy(path, into)

    def _step(
        self,
        command: str,
        root: Path,
        directory: Path,
        environment: Mapping[str, str],
        *,
        with_rust: bool,
    ) -> None:
        mounts = [f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
        mounts += (_bind(Path(path), root / path.lstrip("/")) for path in _LENT)
        lent, paths = _lent_variables()
        mounts += (_bind(path, root / (_LENT_DIRECTORY + str(path)).lstrip("/")) for path in paths)
        variables = {**environment, **lent}
        if with_rust:
            rust = _run("rustc", "--print", "sysroot").strip()
            mounts.append(_bind(Path(rust), root / _RUST.lstrip("/")))
            variables["PATH"] = f"{_RUST}/bin:{variables['PATH']}"
        script = " && ".join([*mounts, f'exec chroot {root} sh -c "$0"'])
        inner = f"cd {directory} && {command}"
        _run(
            *("env", "-i", *(f"{name}={value}" for name, value in variables.items())),
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", script, inner),
        )


def command_line(stage: Stage, arguments: Sequence[str] = ()) -> list[str]:
    """Return what a container runs, with `arguments` in place of CMD."""
    (entry,) = stage.arguments("ENTRYPOINT")
    (default,) = stage.arguments("CMD")
    return [*json.loads(entry), *(arguments or json.loads(default))]


def health_command(stage: Stage) -> list[str]:
    """Return how health is asked."""
    (text,) = stage.arguments("HEALTHCHECK")
    return ["sh", "-c", text.partition("CMD ")[2]]


def contained(root: Path, command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the command line that runs `command` as process 1 of a container, in this network."""
    mounts = [
        f"mount --bind {root} {root}",
        f"mount -t proc proc {root}/proc",
        f"mount -t tmpfs tmpfs {root}/run",
        f"mount --rbind /dev {root}/dev",
        f"mount -o remount,ro,bind {root}/proc/sys 2>/dev/null; true",
    ]
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    bounding = ",".join(("-all", *(f"+{name}" for name in CAPABILITIES)))
    inner = f"exec chroot {root} setpriv --bounding-set {bounding} env -i {variables} "
    script = "; ".join([*mounts, inner + shlex.join(command)])
    return [
        *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"),
        *("sh", "-c", script),
    ]


def _lent_variables() -> tuple[dict[str, str], list[Path]]:
    """Return how pip and cargo reach their registries here, and the paths which that names."""
    variables = {name: value for name, value in os.environ.items() if _LENT_VARIABLES.match(name)}
    variables |= {"SSL_CERT_FILE": _CERTIFICATES, "PIP_CONFIG_FILE": "/etc/pip.conf"}
    named = {name: Path(value) for name, value in variables.items() if value.startswith("/")}
    variables |= {name: f"{_LENT_DIRECTORY}{path}" for name, path in named.items()}
    found = {path for path in named.values() if path.exists()}
    return variables, sorted(path for path in found if not found.intersection(path.parents))


def _bind(path: Path, target: Path) -> str:
    make = f"mkdir -p {target}"
    if not path.is_dir():
        make = f"mkdir -p {target.parent} && touch {target}"
    return f"{make} && mount --bind -o ro {path} {target}"


def _ignored(_directory: str, names: list[str]) -> set[str]:
    return {"target", "fuzz", "__pycache__"} & set(names)


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_STEP_SECONDS, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout
