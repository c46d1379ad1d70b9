"""Three devices on a bad network: what a simulated day happens to.

    hub, alice    have public addresses, and know each other's
    road          is behind a NAT: knows where hub and alice are, and they learn where it is

Each is driven as the daemon drives its device when links, ports, addresses and clocks change.
"""

import itertools
from collections.abc import Callable

from tests.dataplane.lab import SteppedEngine
from tests.faults.watch import Watch
from tests.faults.weather import Weather
from tests.testbed.engines import PORTABLE
from tests.unit.simulation import PORT, SECOND, TRANSPORT, Host, Sent, Simulation, ip_packet
from wgd.addresses import Endpoint, Prefix
from wgd.clock import Clock, Instant, VirtualClock
from wgd.configuration import AllowedIpChange, PeerChange
from wgd.dataplane.interface import PeerId, Tun
from wgd.dataplane.portable import PortableDataPlane
from wgd.net.memory import MemoryNetwork, Transit
from wgd.noise.keypair import Keypair
from wgd.noise.primitives import PrivateKey

OUTSIDE_OF_NAT = "198.51.100.1"
MAX_CAPTURED = 1000
FIRST_PORT_OF_NAT = 1024
NAMES = HUB, ALICE, ROAD = "hub", "alice", "road"


MakeEngine = Callable[[Tun, Clock], SteppedEngine]


def _choose(engine: str, seed: int) -> dict[str, MakeEngine]:
    """Return how to make the engine of each node: the native one meets the other on odd seeds."""
    if engine == PORTABLE:
        return dict.fromkeys(NAMES, PortableDataPlane)
    from wgd.dataplane.native import NativeDataPlane  # it may not be there

    chosen: dict[str, MakeEngine] = dict.fromkeys(NAMES, NativeDataPlane)
    if seed % 2:
        chosen[NAMES[seed % len(NAMES)]] = PortableDataPlane
    return chosen


class NodeClock:
    """Boot time is everybody's, as it is only ever compared with itself; wall time may be wrong."""

    def __init__(self, true: VirtualClock) -> None:
        self._true = true
        self._wrong_by_ns = 0
        self._latest_wall_ns = 0

    def now(self) -> Instant:
        true = self._true.now()
        return true._replace(wall_ns=true.wall_ns + self._wrong_by_ns)

    def boot_ns(self) -> int:
        return self._true.boot_ns()

    def step(self, difference_ns: int) -> None:
        """Move the wall clock, forth or back."""
        self._latest_wall_ns = max(self._latest_wall_ns, self.now().wall_ns)
        self._wrong_by_ns += difference_ns

    def put_right(self) -> None:
        """Show no time that was shown before: else a peer made anew is taken for a replay."""
        self.step(0)
        self._wrong_by_ns += max(0, self._latest_wall_ns + SECOND - self.now().wall_ns)


def _watched(engine: SteppedEngine, watch: Watch) -> SteppedEngine:
    """Let the watch see every key that the engine is given."""
    install = engine.install_keypair

    def install_keypair(peer: PeerId, keypair: Keypair) -> tuple[int, ...]:
        watch.keypair_installed(keypair.send_key)
        return install(peer, keypair)

    vars(engine)["install_keypair"] = install_keypair
    return engine


class Node(Host):
    """A host that may sleep, lose its link, and be somewhere else."""

    simulation: "World"
    clock: NodeClock

    def __init__(self, world: "World", name: str, address: str, tunnel_ip: str) -> None:
        self.is_public = not address.startswith("192.168.")
        self.is_up = True
        self.port = PORT
        self.knows: dict[str, bytes] = {}
        """The keys under which it has its peers, by their names."""
        self._asleep_since_ns: int | None = None
        super().__init__(world, name, address, tunnel_ip, NodeClock(world.clock))

    def make_dataplane(self) -> SteppedEngine:
        engine = self.simulation.engines[self.name](self.tun, self.clock)
        return _watched(engine, self.simulation.watch)

    @property
    def is_asleep(self) -> bool:
        return self._asleep_since_ns is not None

    # -- as the daemon does it ---------------------------------------------------------------------

    def set_link(self, is_up: bool) -> None:
        if is_up == self.is_up:
            return
        self.is_up = is_up
        self.simulation.watch.may_initiate_at_once(self)
        if is_up:
            self._bind()
        self.device.set_link_up(is_up, self.clock.now())
        if not is_up:
            self._unbind()

    def use_port(self, port: int) -> None:
        self.port = port
        if not self.is_up:
            return
        self.simulation.watch.may_initiate_at_once(self)
        self._unbind()
        self._bind()
        self.device.sockets_replaced(self.clock.now())

    def _bind(self) -> None:
        self.sockets = [self.host.bind(port=self.port)]
        self.dataplane.attach_sockets(self.sockets)

    def _unbind(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets = []
        self.dataplane.attach_sockets(())

    def move(self, addresses: tuple[str, ...], *, is_told: bool) -> None:
        self.host.addresses = addresses
        if is_told:
            self.device.network_changed(self.device.peer_ids(), self.clock.now())

    def use_new_key(self) -> None:
        self.private_key = self.simulation.random.randbytes(32)
        self.public_key = PrivateKey(self.private_key).public_key
        self.simulation.watch.may_initiate_at_once(self)
        self.configure(private_key=self.private_key)

    def know(self, other: "Node") -> None:
        """Have the other as a peer, under the key that it has now."""
        if self.knows.get(other.name) != other.public_key:
            self.forget(other)
            self.knows[other.name] = other.public_key
        prefix = Prefix(bytes(map(int, other.tunnel_ip.split("."))), 32)
        is_new = not any(peer.public_key == other.public_key for peer in self.device.state().peers)
        self.configure(
            peers=(
                PeerChange(
                    other.public_key,
                    allowed_ips=(AllowedIpChange(prefix),),
                    endpoint=other.home if is_new and other.is_public else None,
                    preshared_key=self.simulation.preshared[frozenset((self.name, other.name))],
                ),
            )
        )

    def forget(self, other: "Node") -> None:
        if (key := self.knows.pop(other.name, None)) is not None:
            self.configure(peers=(PeerChange(key, remove=True),))

    # -- sleep -------------------------------------------------------------------------------------

    def fall_asleep(self) -> None:
        if not self.is_asleep:
            self._asleep_since_ns = self.clock.boot_ns()

    def wake(self, *, timer_is_first: bool) -> None:
        """The daemon's timer may fire before the news of the suspension comes, or after it."""
        if self._asleep_since_ns is None:
            return
        asleep_ns = self.clock.boot_ns() - self._asleep_since_ns
        self._asleep_since_ns = None
        if timer_is_first:
            self.meet_deadline()
        self.device.woke_up(self.clock.now(), asleep_ns)

    def next_deadline(self) -> int | None:
        return None if self.is_asleep else super().next_deadline()

    def step(self) -> bool:
        if self.is_asleep:
            for sock in self.sockets:
                sock._received.clear()
            return False
        happened = super().step()
        for packet in self.received:
            self.simulation.watch.packet_came(self.name, packet)
        self.received.clear()
        return happened


class BadNetwork(MemoryNetwork):
    """A network with weather, and with a NAT before whoever has a private address."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.clock)
        self._world = world
        self._ports: dict[Endpoint, int] = {}
        self._next_port = FIRST_PORT_OF_NAT

    def rebind_nat(self) -> None:
        """Forget who is behind which port."""
        self._ports.clear()

    def send(self, transit: Transit) -> None:
        sender = self._world.note_sent(transit)
        if not sender.is_public:
            if transit.source not in self._ports:
                self._ports[transit.source] = self._next_port
                self._next_port += 1
            outside = Endpoint(OUTSIDE_OF_NAT, self._ports[transit.source])
            transit = transit._replace(source=outside)
        weather = self._world.weather[sender.name, transit.datagram[0] != TRANSPORT]
        for delay_ns, datagram in weather.copies(transit.datagram):
            self.carry(transit._replace(datagram=datagram), delay_ns)

    def _arrive(self, transit: Transit) -> None:
        if transit.destination.host == OUTSIDE_OF_NAT:
            for inside, port in self._ports.items():
                if port == transit.destination.port:
                    transit = transit._replace(destination=inside)
                    break
        super()._arrive(transit)

    def drop_all(self) -> None:
        """Lose what is under way."""
        self._under_way.clear()


class World(Simulation):
    """The devices and what is between them, watched."""

    network: BadNetwork

    def __init__(self, seed: int, engine: str) -> None:
        self.engines = _choose(engine, seed)
        self.watch = Watch()
        self.captured: list[Transit] = []
        """The first datagrams that were sent: a stranger has them."""
        self.datagrams = 0
        self.last_sent: Sent | None = None
        super().__init__(seed)
        self._serial = itertools.count()
        self.nodes = (
            Node(self, HUB, "192.0.2.1", "10.0.0.1"),
            Node(self, ALICE, "192.0.2.2", "10.0.0.2"),
            Node(self, ROAD, "192.168.0.2", "10.0.0.3"),
        )
        self.hosts = list(self.nodes)
        self.pairs = tuple(itertools.permutations(self.nodes, 2))
        self.weather = {
            (node.name, is_handshake): Weather(f"{seed} {node.name} {is_handshake}")
            for node in self.nodes
            for is_handshake in (False, True)
        }
        """Of what each sends: its handshakes, and all else."""
        self.preshared = {frozenset((one.name, other.name)): bytes(32) for one, other in self.pairs}
        for one, other in self.pairs:
            one.know(other)

    def make_network(self) -> BadNetwork:
        return BadNetwork(self)

    def say(self, one: Node, other: Node, size: int = 0) -> bytes:
        """Put a packet unlike any other into the tunnel of one to the other."""
        content = next(self._serial).to_bytes(8, "big") + bytes(size)
        packet = ip_packet(one.tunnel_ip, other.tunnel_ip, content)
        self.watch.packet_sent(one.name, other.name, packet)
        assert one.tun.inject(packet)
        return packet

    def note_sent(self, transit: Transit) -> Node:
        """Watch a datagram leave, and return who sends it."""
        sender = next(node for node in self.nodes if transit.source.host in node.host.addresses)
        datagram = transit.datagram
        self.watch.datagram_sent(sender, datagram, self.now_ns)
        self.last_sent = Sent(self.now_ns, sender.name, datagram[0], len(datagram), transit)
        self.activity += 1
        self.datagrams += 1
        if len(self.captured) < MAX_CAPTURED:
            self.captured.append(transit)
        return sender
