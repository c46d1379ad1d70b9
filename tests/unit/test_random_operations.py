"""Whatever is done to two devices, in any order: afterwards both directions and the timers work."""

import random

import pytest

from tests.unit.simulation import INITIATION, MILLISECOND, SECOND, TRANSPORT, Host, Sent, pair
from wgd.addresses import Endpoint
from wgd.dataplane.portable import PortableDataPlane

NO_KEY = bytes(32)
OPERATIONS = ["send"] * 6 + ["run"] * 8
OPERATIONS += ["keepalive", "link", "key", "remove", "preshared", "endpoint", "loss", "port"]
OPERATIONS += ["load", "clock", "name", "network", "sleep", "address"]


class Chaos:
    """Two hosts and what was done to them."""

    def __init__(self, seed: int) -> None:
        self.simulation, self.alice, self.bob = pair(seed)
        self.random = random.Random(seed)
        self.is_up = {self.alice: True, self.bob: True}
        self.has_key = dict(self.is_up)
        self.knows_peer = dict(self.is_up)

    def do(self, operation: str) -> None:
        host, other = self.random.sample((self.alice, self.bob), 2)
        now = self.simulation.clock.now()
        match operation:
            case "send":
                host.send(other)
            case "run":
                longest = self.random.choice((0.1, 6, 30, 200))
                self.simulation.run(int(self.random.uniform(0, longest) * SECOND))
            case "keepalive":
                seconds = self.random.choice((0, 1, 25, 65535))
                host.change_peer(other, persistent_keepalive_seconds=seconds, update_only=True)
            case "link":
                self.is_up[host] = not self.is_up[host]
                host.device.set_link_up(self.is_up[host], now)
            case "key":
                self.has_key[host] = not self.has_key[host]
                host.configure(private_key=host.private_key if self.has_key[host] else NO_KEY)
            case "remove":
                self.knows_peer[host] = not self.knows_peer[host]
                if self.knows_peer[host]:
                    host.add_peer(other, endpoint=self.random.random() < 0.8)
                else:
                    host.change_peer(other, remove=True)
            case "preshared":
                key = self.random.choice((NO_KEY, b"\x05" * 32))
                host.change_peer(other, preshared_key=key, update_only=True)
            case "endpoint":
                host.change_peer(other, endpoint=other.home, update_only=True)
            case "loss":
                self.lose(self.random.choice((0, 0, 0.3, 1)), self.random.choice((0, 5, 300)))
            case "port":
                host.dataplane.attach_sockets(host.sockets)
                host.device.sockets_replaced(now)
            case "load":
                host.flood()
            case "clock":
                self.simulation.clock.step_wall_clock(self.random.randrange(-5, 6) * SECOND)
            case "name":
                nowhere = Endpoint("198.51.100.99", other.endpoint.port)
                answers: list[list[Endpoint]] = [[], [other.home], [nowhere], [nowhere, other.home]]
                host.names["other.example"] = self.random.choice(answers)
                host.change_peer(other, endpoint_host="other.example:51820", update_only=True)
            case "network":
                peers = host.device.peer_ids()
                host.device.network_changed(self.random.choice(((), peers)), now)
            case "sleep":
                asleep_ns = int(self.random.uniform(0, 1000) * SECOND)
                self.simulation.clock.advance(asleep_ns)
                host.device.woke_up(self.simulation.clock.now(), asleep_ns)
            case "address":
                home, away = host.home.host, f"203.0.113.{host.tunnel_ip[-1]}"
                host.host.addresses = self.random.choice(((), (home,), (away,)))

    def lose(self, share: float, delay_ms: int) -> None:
        def fate(_sent: Sent) -> tuple[int, ...]:
            if self.random.random() < share:
                return ()
            return (int(self.random.random() * delay_ms) * MILLISECOND,)

        self.simulation.fate = fate

    def heal(self) -> None:
        for host in (self.alice, self.bob):
            host.host.addresses = (host.home.host,)
        for host, other in ((self.alice, self.bob), (self.bob, self.alice)):
            if not self.has_key[host]:
                host.configure(private_key=host.private_key)
            host.add_peer(other, preshared_key=NO_KEY)
            if not self.is_up[host]:
                host.device.set_link_up(True, self.simulation.clock.now())
        self.simulation.fate = lambda _sent: (0,)

    def check_indices(self) -> None:
        """Every live receiver index belongs to a session or a handshake, and to no other."""
        for host in (self.alice, self.bob):
            pending = {peer._handshake_index for peer in host.device._peers.values()} - {None}
            assert isinstance(host.dataplane, PortableDataPlane)
            assert set(host.dataplane._state.sessions) | pending == set(
                host.device._indices._owners
            )


def speak_until_heard(chaos: Chaos, host: Host, other: Host) -> None:
    for _ in range(10):
        packet = host.send(other, b"final")
        chaos.simulation.run(4 * SECOND)
        if packet in other.received:
            return
    raise AssertionError(f"{host.name} is not heard any more")


@pytest.mark.parametrize("seed", range(100))
def test_two_devices_recover_from_anything(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(chaos.random.randrange(5, 60)):
        chaos.do(chaos.random.choice(OPERATIONS))
        chaos.check_indices()
    chaos.heal()
    chaos.simulation.run(chaos.random.choice((7, 300)) * SECOND)
    both = ((chaos.alice, chaos.bob), (chaos.bob, chaos.alice))
    for host, other in both:
        speak_until_heard(chaos, host, other)
    chaos.simulation.run(40 * SECOND)
    for host, other in both:
        began_ns = chaos.simulation.now_ns
        host.send(other)
        chaos.simulation.run(10 * SECOND)
        log = chaos.simulation
        if not log.sent(INITIATION, since_ns=began_ns):  # else what came back was the response
            assert log.sent(TRANSPORT, by=other, since_ns=began_ns), "no passive keepalive"
    chaos.check_indices()
