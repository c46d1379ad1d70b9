"""Makes docs/troubleshooting.md of the catalog: `python -m wgd.ctl.doctor.guide > FILE`."""

import re
import sys
import textwrap
from typing import Final

from wgd.ctl.doctor.catalog import CATALOG, Entry, Severity

_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")
_WORDS: Final = {
    "best": "SMALLER",
    "called": "3 handshakes were sent",
    "caller": "PUBLIC-KEY",
    "count": "5 times",
    "counts": "N bytes sent, M received",
    "direction": "comes in for UDP port PORT",
    "host": "HOST",
    "instead": "to eth0",
    "interface": "wg0",
    "key": "PUBLIC-KEY",
    "ours": "this one has none",
    "own_key": "OUR-PUBLIC-KEY",
    "peer": "PEER",
    "port": "PORT",
    "prefix": "PREFIX",
    "underlay": "eth0",
    "who": "PUBLIC-KEY from ADDRESS",
}
_WIDTH: Final = 100
_LEFT_OUT: Final = ("detail", "where", "ping")  # such parts are often empty

_HEAD: Final = """\
# Troubleshooting

<!-- Made by `python -m wgd.ctl.doctor.guide` from wgd/ctl/doctor/catalog.py: change it there. -->

`wgdctl doctor` says what is wrong with a tunnel and what to try:

```
wgdctl doctor               # every interface of this machine
wgdctl doctor wg0           # one of them
wgdctl doctor wg0 --json    # for programs
wgdctl doctor wg0 --no-probe        # send no packet and look up no name
wgdctl doctor wg0 --config FILE     # compare with FILE, not /etc/wireguard/wg0.conf
```

It changes nothing. Unless told not to, it sends a few packets: an empty datagram and some pings to
the endpoints of configured peers, and pings through the tunnel to peers with one address. Run it
on **both ends**: WireGuard does not answer what it does not accept, so the end that is called often
knows the reason and the end that calls does not.

As root it sees everything. Without root it reads the status of a wgd that was started with
`--metrics unix`, if you may open that socket. Of other daemons, such as wireguard-go, it sees what
`wg show` shows. What it could not look at is listed at the end.

The exit status is 0 if there is no problem, 2 if there is one (warnings and notes do not count),
and 1 if an interface could not be examined.

Below is all that it may say, the name in brackets as a heading. If the doctor is not at hand, read
from the top: the order is that in which to look.
"""

_KINDS: Final = {
    Severity.PROBLEM: "A problem",
    Severity.WARNING: "A warning",
    Severity.NOTE: "A note",
}


def guide() -> str:
    """Return docs/troubleshooting.md."""
    return _HEAD + "".join(map(_section, CATALOG.values()))


def _section(entry: Entry) -> str:
    parts = [
        _paragraph(entry.sentence, "> ", "> "),
        _paragraph(f"{_KINDS[entry.severity]}. {entry.meaning}"),
        "\n".join(_paragraph(line, "- ", "  ") for line in entry.advice),
    ]
    return f"\n## {entry.id}\n\n" + "\n\n".join(parts) + "\n"


def _paragraph(template: str, first: str = "", following: str = "") -> str:
    return textwrap.fill(
        _shown(template),
        _WIDTH,
        initial_indent=first,
        subsequent_indent=following,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _shown(template: str) -> str:
    """Return a template with words in place of what the doctor puts there."""

    def word(found: re.Match[str]) -> str:
        name = found[1]
        return "" if name in _LEFT_OUT else _WORDS.get(name, name.replace("_", "-").upper())

    text = _PLACEHOLDER.sub(word, template)
    return re.sub(r" +", " ", text).replace(" .", ".").strip()


if __name__ == "__main__":
    sys.stdout.write(guide())
