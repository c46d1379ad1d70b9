"""The firewall rules that go with a default route, as wg-quick makes them, by nft or iptables.

They keep packets from outside from reaching the interface's addresses past the tunnel, and give
the answers to the daemon's own UDP packets its firewall mark, so that reverse path filtering finds
the way they came.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from wgd.quick.errors import QuickError
from wgd.quick.system import System

_NFT_FAMILY = {4: "ip", 6: "ip6"}
_IPTABLES = {4: "iptables", 6: "ip6tables"}


def check_tool(system: System) -> str:
    """Return the program that is here: nft or iptables. Raises QuickError if there is none."""
    for tool, program in (("nft", "nft"), ("iptables", "iptables-restore")):
        if system.has(program):
            return tool
    raise QuickError(
        "a default route needs firewall rules, and there is no nft: install nftables, "
        "or say Table = off and route yourself"
    )


@dataclass(frozen=True, slots=True)
class Firewall:
    """The rules of one IP version for an interface, its addresses and its mark."""

    kind: ClassVar[str] = "firewall"
    interface: str
    tool: str
    version: int
    fwmark: int
    addresses: tuple[str, ...]

    def do(self, system: System) -> None:
        """Set the rules at once, in place of those there may be."""
        if self.tool == "nft":
            system.say("nft -f -")
            system.run("nft", "-f", "-", stdin="".join(f"{line}\n" for line in self._nft()))
        else:
            self._delete_iptables(system)
            restore = f"{_IPTABLES[self.version]}-restore"
            system.say(f"{restore} -n")
            system.run(restore, "-n", stdin="".join(f"{line}\n" for line in self._iptables()))

    def undo(self, system: System) -> None:
        """Take the rules away."""
        if self.tool == "nft":
            text = "".join(f"{line}\n" for line in self._delete_nft())
            system.say("nft -f -")
            system.run("nft", "-f", "-", stdin=text)
        else:
            self._delete_iptables(system)

    @property
    def _table(self) -> str:
        return f"{_NFT_FAMILY[self.version]} wg-quick-{self.interface}"

    def _delete_nft(self) -> Iterator[str]:
        yield f"add table {self._table}"  # so that there is one to delete
        yield f"delete table {self._table}"

    def _nft(self) -> Iterator[str]:
        family, table = _NFT_FAMILY[self.version], self._table
        yield from self._delete_nft()
        yield f"add table {table}"
        for chain, hook, priority in (
            ("preraw", "prerouting", -300),
            ("premangle", "prerouting", -150),
            ("postmangle", "postrouting", -150),
        ):
            yield f"add chain {table} {chain} {{ type filter hook {hook} priority {priority}; }}"
        for address in self.addresses:
            yield (
                f'add rule {table} preraw iifname != "{self.interface}" {family} daddr {address} '
                "fib saddr type != local drop"
            )
        yield (
            f"add rule {table} postmangle meta l4proto udp meta mark {self.fwmark} "
            "ct mark set meta mark"
        )
        yield f"add rule {table} premangle meta l4proto udp meta mark set ct mark"

    # -- iptables ----------------------------------------------------------------------------------

    @property
    def _comment(self) -> str:
        return f'-m comment --comment "wg-quick(8) rule for {self.interface}"'

    def _iptables(self) -> Iterator[str]:
        yield "*raw"
        for address in self.addresses:
            yield (
                f"-I PREROUTING ! -i {self.interface} -d {address} "
                f"-m addrtype ! --src-type LOCAL -j DROP {self._comment}"
            )
        yield "COMMIT"
        yield "*mangle"
        yield (
            f"-I POSTROUTING -m mark --mark {self.fwmark} -p udp "
            f"-j CONNMARK --save-mark {self._comment}"
        )
        yield f"-I PREROUTING -p udp -j CONNMARK --restore-mark {self._comment}"
        yield "COMMIT"

    def _delete_iptables(self, system: System) -> None:
        program = _IPTABLES[self.version]
        table, deletions = "", []
        for line in system.run(f"{program}-save").splitlines():
            if line.startswith("*"):
                table = line
            elif line.startswith("-A ") and self._comment in line:
                deletions += [table, f"-D {line.removeprefix('-A ')}", "COMMIT"]
        if deletions:
            system.run(f"{program}-restore", "-n", stdin="\n".join(deletions) + "\n")
