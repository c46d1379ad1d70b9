"""Gathers the facts: 1 ask the daemon, 2 read its file, 3 look at the system, 4 ask the network.

What fails becomes an `Unseen`, so that the rest still says something.
"""

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from wgd.ctl.doctor.ask import ask, read_file
from wgd.ctl.doctor.facts import Facts, Unseen
from wgd.uapi.client import Client


@dataclass(frozen=True, slots=True)
class Options:
    """What the user wants: without `probes` no packet is sent; `file` is the configuration file."""

    probes: bool = True
    file: Path | None = None


def gather(interface: str, client: Client, options: Options) -> Facts:
    """Return the facts about an interface. Raises WgdError if there is no such interface, or if the
    file that was named cannot be read.
    """
    unseen: list[Unseen] = []
    source, device, refused = ask(interface, client, unseen)
    file_name, file_peers = read_file(interface, options.file, unseen)
    facts = Facts(
        interface, time.time_ns(), source, device, file_name=file_name, file_peers=file_peers
    )
    if sys.platform == "linux":
        from wgd.ctl.doctor.look import look

        facts = look(facts, unseen)
    else:
        unseen.append(Unseen("interfaces, routes and firewall", "that is done on Linux only"))
    if refused is not None and (facts.link is None or os.geteuid() != 0):
        raise refused  # who is not root cannot know whether there is a daemon
    if refused is not None:
        return replace(facts, refusal=str(refused), unseen=tuple(unseen))
    if not options.probes:
        unseen.append(Unseen("the network", "--no-probe: no packet is sent, no name looked up"))
    elif sys.platform == "linux":
        from wgd.ctl.doctor.network import ask_network

        facts = ask_network(facts, client, unseen)
    return replace(facts, unseen=tuple(unseen))
