"""A day in the life of three devices, of which everything that happens is drawn from a seed.

1 `plan(seed)` draws the steps: what happens, each with a seed of its own, so that a step does the
  same whatever is left out before it;
2 `Day(seed, engine).run_through(steps)` lets them happen on a virtual clock, under `Watch`;
3 then the faults stop, and within RECOVERY_NS all are heard who speak: of each pair one or both;
4 from then on no packet is lost in either direction while keys are renewed, and when nobody says
  anything more all is quiet.

AssertionError where that is not so; `shortest` finds the steps that matter.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from tests.faults.nodes import World
from tests.faults.watch import check_idle, check_tables
from tests.faults.weather import Faults
from tests.testbed.engines import PORTABLE
from tests.unit.simulation import MILLISECOND, PORT, SECOND
from wgd.addresses import Endpoint
from wgd.net.memory import Transit
from wgd.noise.cookie import HandshakeKeys
from wgd.noise.primitives import mac

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

RECOVERY_NS = 26 * SECOND
"""After the last fault: data is not answered for KEEPALIVE_TIMEOUT + REKEY_TIMEOUT and a jitter
(15.333 s), the initiation meets a peer that just sent or took another, or goes where the peer was
last heard (REKEY_TIMEOUT and a jitter, 5.333 s), and so does another."""

PATIENCE_NS = 200 * SECOND
"""Longer than a session is used: keys are renewed in it."""

SILENCE_AFTER_NS = 11 * SECOND
"""Data is acknowledged by a keepalive after 10 s; then there is nothing to say."""

FORGET_AFTER_NS = 600 * SECOND
"""Keys are erased 540 s after they were made."""

STRANGER = Endpoint("203.0.113.200", 666)

WEIGHTS = {
    "time": 10,
    "send": 8,
    "cross": 3,
    "weather": 4,
    "fair": 2,
    "link": 2,
    "key": 1,
    "port": 1,
    "peer": 2,
    "preshared": 1,
    "keepalive": 2,
    "address": 2,
    "nat": 2,
    "load": 2,
    "replay": 2,
    "clock": 2,
    "sleep": 2,
}

BLOWS = ("link", "key", "port", "peer", "preshared", "address", "nat", "load", "clock", "sleep")


class Step(NamedTuple):
    """Something happens; what exactly is drawn from its seed."""

    name: str
    seed: int


def plan(seed: int) -> list[Step]:
    """Return the steps of a day."""
    rng = random.Random(f"plan {seed}")
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    count = rng.randrange(10, 120)
    drawn = rng.choices(names, weights, k=count)
    # Many a day ends with a blow to sessions that are fresh.
    drawn += rng.choice(((), ("calm", rng.choice(BLOWS)), ("calm", *rng.sample(BLOWS, 3))))
    return [Step(name, rng.getrandbits(32)) for name in drawn]


class Day(World):
    """One day; `run_through` it once."""

    def __init__(self, seed: int, engine: str = PORTABLE) -> None:
        super().__init__(seed, engine)
        self.recovered_ns: dict[tuple[str, str], int] = {}
        """Of each who speaks: how long after the last fault it said what was heard."""
        # In the end some pairs speak in one direction only. Nobody finds road but by hearing it.
        rng = random.Random(f"speakers {seed}")
        hub, alice, road = self.nodes
        self.speakers = [(road, hub), (road, alice), rng.choice(((hub, alice), (alice, hub)))]
        self.speakers += [pair[::-1] for pair in self.speakers if rng.random() < 0.5]

    # -- the day -----------------------------------------------------------------------------------

    def run_through(self, steps: Sequence[Step]) -> None:
        """Let the steps happen, then see that everything works, and then that nothing moves."""
        for step in steps:
            getattr(self, f"_{step.name}")(random.Random(step.seed))
            self.settle()
            check_tables(self.nodes)
        self._stop_faults()
        self._recover()
        check_tables(self.nodes)
        self._be_patient()
        check_tables(self.nodes)
        self._be_quiet()

    def _stop_faults(self) -> None:
        # What is late is a fault, too: an initiation of long ago moves an endpoint back.
        self.network.drop_all()
        for weather in self.weather.values():
            weather.faults = Faults()
        for node in self.nodes:
            node.clock.put_right()
            node.move((node.home.host,), is_told=False)
            node.set_link(True)
            if node.port != PORT:
                node.use_port(PORT)
            # The last, because a peer believes whatever it is told from the place it is told from.
            node.wake(timer_is_first=True)
        for one, other in self.pairs:
            one.know(other)
            one.change_peer(other, persistent_keepalive_seconds=0)

    def _recover(self) -> None:
        began_ns = self.now_ns
        while len(self.recovered_ns) < len(self.speakers):
            sent = [(one, other, self.say(one, other)) for one, other in self.speakers]
            self.run(SECOND)
            for one, other, packet in sent:
                if self.watch.has_come(packet):
                    took_ns = self.now_ns - began_ns - SECOND
                    self.recovered_ns.setdefault((one.name, other.name), took_ns)
            if self.now_ns - began_ns > RECOVERY_NS:
                names = {(one.name, other.name) for one, other in self.speakers}
                missing = names - set(self.recovered_ns)
                assert not missing, (
                    f"not heard {RECOVERY_NS // SECOND} s after the faults: {missing}"
                )

    def _calm(self, _rng: random.Random) -> None:
        """For a while nothing is wrong, and everybody speaks."""
        self._stop_faults()
        for _ in range(8):
            for one, other in self.pairs:
                self.say(one, other)
            self.run(3 * SECOND)

    def _be_patient(self) -> None:
        self.watch.outstanding.clear()
        self.watch.refused.clear()
        end_ns = self.now_ns + PATIENCE_NS
        while self.now_ns < end_ns:
            for one, other in self.pairs:
                self.say(one, other)
            self.run(5 * SECOND)
            lost = {(sender, receiver) for _, sender, receiver in self.watch.outstanding.values()}
            assert not lost, f"lost where nothing is wrong: {lost}"
            assert not self.watch.refused, "refused where nothing is wrong"

    def _be_quiet(self) -> None:
        self.run(SILENCE_AFTER_NS)
        before = self.datagrams
        self.run(FORGET_AFTER_NS)
        assert self.datagrams == before, f"somebody still speaks: {self.last_sent}"
        check_idle(self.nodes)

    # -- what may happen ---------------------------------------------------------------------------

    def _time(self, rng: random.Random) -> None:
        longest = rng.choice((0.1, 1, 6, 6, 30, 30, 200, 200, 200, 700, 700, 3600))
        self.run(int(rng.uniform(0, longest) * SECOND))

    def _send(self, rng: random.Random) -> None:
        one, other = rng.sample(self.nodes, 2)
        for _ in range(rng.choice((1, 1, 3, 200))):
            if not one.is_asleep:
                self.say(one, other, rng.randrange(1400))

    def _cross(self, rng: random.Random) -> None:
        """Everybody speaks at the same moment."""
        for one, other in self.pairs:
            if not one.is_asleep and rng.random() < 0.8:
                self.say(one, other)

    def _weather(self, rng: random.Random) -> None:
        faults = Faults(
            loss=rng.choice((0, 0, 0.1, 0.5, 0.9, 1)),
            duplication=rng.choice((0, 0, 0.3, 1)),
            reordering=rng.choice((0, 0, 0.3)),
            corruption=rng.choice((0, 0, 0.05, 0.5)),
            delay_ns=rng.choice((0, 5, 400, 3000)) * MILLISECOND,
            jitter_ns=rng.choice((0, 0, 100, 6000)) * MILLISECOND,
            held_back_ns=rng.choice((50, 2000, 20_000)) * MILLISECOND,
        )
        for (_sender, is_handshake), weather in self.weather.items():
            if rng.random() < (0.7 if is_handshake else 0.5):
                weather.faults = faults

    def _fair(self, _rng: random.Random) -> None:
        for weather in self.weather.values():
            weather.faults = Faults()

    def _link(self, rng: random.Random) -> None:
        node = rng.choice(self.nodes)
        node.set_link(not node.is_up)
        if rng.random() < 0.5:
            node.set_link(not node.is_up)

    def _key(self, rng: random.Random) -> None:
        node = rng.choice(self.nodes)
        node.use_new_key()
        for other in self.nodes:
            if other is not node and rng.random() < 0.7:
                other.know(node)

    def _port(self, rng: random.Random) -> None:
        rng.choice(self.nodes).use_port(rng.randrange(50_000, 60_000))

    def _peer(self, rng: random.Random) -> None:
        one, other = rng.sample(self.nodes, 2)
        if other.name in one.knows:
            one.forget(other)
        if rng.random() < 0.7:
            one.know(other)

    def _preshared(self, rng: random.Random) -> None:
        """On one side first, on the other perhaps later."""
        one, other = rng.sample(self.nodes, 2)
        self.preshared[frozenset((one.name, other.name))] = rng.randbytes(32)
        one.know(other)
        if rng.random() < 0.5:
            other.know(one)

    def _keepalive(self, rng: random.Random) -> None:
        one, other = rng.sample(self.nodes, 2)
        seconds = rng.choice((0, 1, 25, 25, 600))
        one.change_peer(other, persistent_keepalive_seconds=seconds, update_only=True)

    def _address(self, rng: random.Random) -> None:
        node = rng.choice(self.nodes)
        away = "192.168.0.77" if not node.is_public else f"203.0.113.{node.tunnel_ip[-1]}"
        node.move(rng.choice(((), (node.home.host,), (away,))), is_told=rng.random() < 0.5)

    def _nat(self, _rng: random.Random) -> None:
        self.network.rebind_nat()

    def _load(self, rng: random.Random) -> None:
        """A stranger who knows the public key sends more handshakes than can be handled."""
        node = rng.choice(self.nodes)
        key = HandshakeKeys.of(node.public_key).mac1
        for _ in range(rng.choice((140, 140, 1200))):
            message = b"\x01\x00\x00\x00" + rng.randbytes(112)
            datagram = message + mac(key, message) + bytes(16)
            self._inject(Transit(STRANGER, Endpoint(node.home.host, node.port), datagram))

    def _replay(self, rng: random.Random) -> None:
        """A stranger repeats what was said before, from where it was said, or from elsewhere."""
        for _ in range(rng.choice((1, 20))):
            if self.captured:
                transit = rng.choice(self.captured)
                self._inject(rng.choice((transit, transit._replace(source=STRANGER))))

    def _inject(self, transit: Transit) -> None:
        self.activity += 1
        self.network.carry(transit, 0)

    def _clock(self, rng: random.Random) -> None:
        longest = rng.choice((1, 60, 86_400, 400 * 86_400))
        rng.choice(self.nodes).clock.step(int(rng.uniform(-longest, longest) * SECOND))

    def _sleep(self, rng: random.Random) -> None:
        node = rng.choice(self.nodes)
        if node.is_asleep:
            node.wake(timer_is_first=rng.random() < 0.5)
        else:
            node.fall_asleep()


def live(seed: int, engine: str = PORTABLE, steps: Sequence[Step] | None = None) -> Day:
    """Live through the day of this seed, or through some of its steps, and return it."""
    day = Day(seed, engine)
    day.run_through(plan(seed) if steps is None else steps)
    return day


def fails(seed: int, engine: str = PORTABLE, steps: Sequence[Step] | None = None) -> str:
    """Return what goes wrong in a day of these steps; "" for nothing."""
    try:
        live(seed, engine, steps)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
        return f"{type(error).__name__}: {error}"
    return ""


def shortest(seed: int, engine: str = PORTABLE) -> tuple[list[Step], str]:
    """Return the fewest steps found that still go wrong, and how."""
    steps = plan(seed)
    error = fails(seed, engine, steps)
    if not error:
        return [], ""
    size = max(len(steps) // 2, 1)
    while size:
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if other := fails(seed, engine, fewer):
                steps, error = fewer, other
            else:
                start += size
        size //= 2
    return steps, error
