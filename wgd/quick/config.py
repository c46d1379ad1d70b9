"""What a wg-quick file says, checked whole before anything is changed, and where it is found."""

import ipaddress
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wgd.configuration import DeviceChange
from wgd.ctl import config_file
from wgd.ctl.errors import ConfigFileError, ValueTextError
from wgd.quick import lines
from wgd.quick.errors import QuickError
from wgd.shown import shown

DIRECTORY: Final = Path("/etc/wireguard")

MIN_MTU: Final = 68  # what IPv4 needs at least; the kernel's bound for a TUN device
MAX_MTU: Final = 65_535
MAX_TABLE: Final = 2**32 - 1

IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_NAME: Final = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}", re.ASCII)
_DNS_SERVER: Final = re.compile(rb"[0-9.]+|.*:.*")
_SEPARATORS: Final = re.compile(rb"[, \t\n\v\f\r]+")
_TABLES: Final = {"default": 253, "main": 254, "local": 255}


@dataclass(frozen=True, slots=True)
class Hooks:
    """Commands for bash, each with `%i` for the interface's name, in the order of the file."""

    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QuickConfig:
    """A wg-quick file. `table` is None for `auto`, 0 for `off`, else a table's number; `mtu` None
    when it is to be found out. `data` is the file as it was read: it holds keys.
    """

    path: Path
    interface: str
    data: bytes = field(repr=False)
    addresses: tuple[IpInterface, ...] = ()
    dns_servers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    mtu: int | None = None
    table: int | None = None
    table_text: str = ""
    save_config: bool = False
    hooks: Hooks = Hooks()

    def device_change(
        self, read_endpoint: config_file.ReadEndpoint, warn: Callable[[str], None]
    ) -> DeviceChange:
        """Return what `wg setconf` would set, with the host names of endpoints.

        `read_endpoint` may ask the resolver. Raises QuickError.
        """
        try:
            change = config_file.parse(
                lines.for_wg(self.data),
                read_endpoint=read_endpoint,
                warn=warn,
                keep_host_names=True,
            )
        except ConfigFileError as error:
            raise QuickError(f"{self.path}, {error}") from None
        return config_file.whole(change)


# -- finding the file ------------------------------------------------------------------------------


def find(word: str, directory: Path = DIRECTORY) -> tuple[Path, str]:
    """Return the file that a word on the command line means, and its interface.

    The word is an interface's name, whose file is in `directory`, or a file called NAME.conf.
    Raises QuickError, also when there is no such file.
    """
    is_name = _NAME.fullmatch(word) is not None
    path = directory / f"{word}.conf" if is_name else Path(word)
    if not path.exists():
        cure = "check the name"
        if is_name and word.endswith(".conf"):
            cure = f"for a file in the current directory write ./{word}"
        raise QuickError(f"{str(path)!r} does not exist: {cure}")
    name = path.name.removesuffix(".conf")
    if not path.name.endswith(".conf") or not _NAME.fullmatch(name):
        raise QuickError(
            f"{str(path)!r} does not tell the interface: name the file after it, such as wg0.conf "
            "(letters, digits and _=+.-, at most 15)"
        )
    return path.resolve(), name


def interface_of(word: str) -> str | None:
    """Return the interface that a word on the command line means, None if it means none."""
    name = word if _NAME.fullmatch(word) else Path(word).name.removesuffix(".conf")
    return name if _NAME.fullmatch(name) else None


def is_world_accessible(path: Path) -> bool:
    """Whether everybody may do something to a file, and to the directory it is in."""
    modes = stat.S_IMODE(path.stat().st_mode) & stat.S_IMODE(path.parent.stat().st_mode)
    return bool(modes & stat.S_IRWXO)


# -- reading it ------------------------------------------------------------------------------------


def load(path: Path, interface: str) -> QuickConfig:
    """Read a file. Raises QuickError: a line that is wrong, or a file that cannot be read."""
    return parse(content(path), path, interface)


def content(path: Path) -> bytes:
    """Return what is in a file. Raises QuickError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise QuickError(f"cannot read {str(path)!r}: {error.strerror}") from None


def parse(data: bytes, path: Path, interface: str) -> QuickConfig:
    """Return what a file says. Raises QuickError with file and line.

    Not read yet are the lines for `wg`, which may need the resolver: see `device_change`.
    """
    reader = _Reader()
    for line in lines.read(data):
        try:
            if line.key:
                reader.take(line.key, line.value)
        except ValueTextError as error:
            raise QuickError(f"{path}, line {line.number}: {error}") from None
    return QuickConfig(
        path=path,
        interface=interface,
        data=data,
        addresses=tuple(reader.addresses),
        dns_servers=tuple(reader.dns_servers),
        dns_search=tuple(reader.dns_search),
        mtu=reader.mtu,
        table=reader.table,
        table_text=reader.table_text,
        save_config=reader.save_config,
        hooks=Hooks(*(tuple(reader.hooks[name]) for name in _HOOKS)),
    )


_HOOKS: Final = (b"preup", b"postup", b"predown", b"postdown")


class _Reader:
    """Takes keys and values; each method raises ValueTextError."""

    def __init__(self) -> None:
        self.addresses: list[IpInterface] = []
        self.dns_servers: list[str] = []
        self.dns_search: list[str] = []
        self.mtu: int | None = None
        self.table: int | None = None
        self.table_text = ""
        self.save_config = False
        self.hooks: dict[bytes, list[str]] = {name: [] for name in _HOOKS}

    def take(self, key: bytes, value: bytes) -> None:
        text = os.fsdecode(value)
        if key in self.hooks:
            self.hooks[key].append(text)
        elif key == b"address":
            self.addresses += map(_address, _words(value))
        elif key == b"dns":
            for word in _words(value):
                is_server = _DNS_SERVER.fullmatch(os.fsencode(word)) is not None
                (self.dns_servers if is_server else self.dns_search).append(word)
        elif key == b"mtu":
            self.mtu = _mtu(text)
        elif key == b"table":
            self.table, self.table_text = _table(text), text
        elif key == b"saveconfig":
            self.save_config = _boolean(text)


def _words(value: bytes) -> Iterator[str]:
    for word in _SEPARATORS.split(value):
        if word:
            yield os.fsdecode(word)


def _address(text: str) -> IpInterface:
    try:
        address = ipaddress.ip_interface(text)
    except ValueError:
        address = None
    if address is None or (address.version == 6 and address.scope_id):
        raise ValueTextError(
            "Address is an IP address with a prefix length, such as 10.0.0.1/24, "
            f"not {_shown(text)}"
        )
    return address


def _mtu(text: str) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 9 and MIN_MTU <= int(text) <= MAX_MTU:
        return int(text)
    raise ValueTextError(f"MTU is a number in {MIN_MTU}..{MAX_MTU}, not {_shown(text)}")


def _table(text: str) -> int | None:
    if not text or text == "auto":
        return None
    if text == "off":
        return 0
    try:
        number = int(text, 0) if text[0].isdigit() else _named_table(text)
    except ValueError:
        number = 0
    if not 0 < number <= MAX_TABLE:
        raise ValueTextError(
            "Table is off, auto, a number in 1..4294967295, or a name in /etc/iproute2/rt_tables, "
            f"not {_shown(text)}"
        )
    return number


def _named_table(name: str) -> int:
    """Return the number of a table that iproute2 knows by a name. Raises ValueError."""
    if name in _TABLES:
        return _TABLES[name]
    for directory in (
        Path("/etc/iproute2"),
        Path("/usr/share/iproute2"),
        Path("/usr/lib/iproute2"),
    ):
        files = [directory / "rt_tables", *sorted((directory / "rt_tables.d").glob("*.conf"))]
        for path in files:
            for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
                words = line.partition("#")[0].split()
                if len(words) == 2 and words[1] == name:
                    return int(words[0], 0)
    raise ValueError(name)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueTextError(f"SaveConfig is true or false, not {_shown(text)}")
    return text.lower() == "true"


def _shown(text: str) -> str:
    return shown(text) if text else "empty"
