"""The words of `set`: settings of the interface, then each peer's after `peer PUBLIC-KEY`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from wgd.addresses import Endpoint
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange
from wgd.ctl import values
from wgd.ctl.errors import UsageError, ValueTextError


@dataclass(slots=True)
class _Peer:
    public_key: bytes
    remove: bool = False
    preshared_key: bytes | None = field(default=None, repr=False)
    endpoint: Endpoint | None = None
    persistent_keepalive_seconds: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: list[AllowedIpChange] = field(default_factory=list)

    def change(self) -> PeerChange:
        return PeerChange(
            self.public_key,
            remove=self.remove,
            preshared_key=self.preshared_key,
            endpoint=self.endpoint,
            persistent_keepalive_seconds=self.persistent_keepalive_seconds,
            replace_allowed_ips=self.replace_allowed_ips,
            allowed_ips=tuple(self.allowed_ips),
        )


def parse(
    words: Sequence[str],
    *,
    read_key_file: Callable[[str], bytes],
    read_endpoint: Callable[[str], Endpoint],
    warn: Callable[[str], None],
) -> DeviceChange:
    """Return what the words after the interface's name say.

    Raises UsageError for a word that does not belong there, ValueTextError for a value, and what
    the two readers raise.
    """
    private_key: bytes | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    peers: list[_Peer] = []
    rest = iter(words)
    for word in rest:
        if word == "peer":
            peers.append(_Peer(_key(_value(rest, word))))
        elif peers:
            _take_peer_word(peers[-1], word, rest, read_key_file, read_endpoint, warn)
        elif word == "listen-port":
            listen_port = values.port(_value(rest, word))
        elif word == "fwmark":
            fwmark = values.fwmark(_value(rest, word))
        elif word == "private-key":
            private_key = read_key_file(_value(rest, word))
        else:
            raise _misplaced(word, "before the first `peer`")
    return DeviceChange(
        private_key=private_key,
        listen_port=listen_port,
        fwmark=fwmark,
        peers=tuple(peer.change() for peer in peers),
    )


def _take_peer_word(
    peer: _Peer,
    word: str,
    rest: Iterator[str],
    read_key_file: Callable[[str], bytes],
    read_endpoint: Callable[[str], Endpoint],
    warn: Callable[[str], None],
) -> None:
    match word:
        case "remove":
            peer.remove = True
        case "preshared-key":
            peer.preshared_key = read_key_file(_value(rest, word))
        case "endpoint":
            peer.endpoint = read_endpoint(_value(rest, word))
        case "persistent-keepalive":
            peer.persistent_keepalive_seconds = values.keepalive_seconds(_value(rest, word))
        case "allowed-ips":
            peer.replace_allowed_ips, changes = values.allowed_ips(_value(rest, word), warn)
            peer.allowed_ips += changes
        case _:
            raise _misplaced(word, "after a `peer`")


def _value(rest: Iterator[str], word: str) -> str:
    value = next(rest, None)
    if value is None:
        raise UsageError(f"there is no value after `{word}`")
    return value


def _key(text: str) -> bytes:
    try:
        return values.key(text)
    except ValueTextError as error:
        raise ValueTextError(f"after `peer`: {error}") from None


def _misplaced(word: str, place: str) -> UsageError:
    # A word that is long may be a key that lost its name.
    shown = f"{word!a} is" if len(word) <= 24 else "there is a word that is"
    return UsageError(f"{shown} no setting {place}")
