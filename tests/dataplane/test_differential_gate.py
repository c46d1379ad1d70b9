"""The two gates judge alike: one random history of senders, loads and cookies for both."""

import struct
from collections.abc import Iterable
from random import Random

from tests.dataplane.lab import OUR_ADDRESS, A, B, Lab, NativeLab
from tests.dataplane.test_gate import KEYS, Crowd, cookie_in, mac
from tests.testbed.engines import NATIVE, require_engine
from wgd.addresses import Endpoint, Source
from wgd.dataplane.interface import Load, QueueDepths
from wgd.dataplane.portable_state import Drops

STEPS = 1000
HOSTS = (
    *(f"203.0.113.{number}" for number in range(6)),
    *(f"198.51.{number}.1" for number in range(40)),
    *("2001:db8:5::1", "2001:db8:5::2", "2001:db8:6::1"),
)
PAUSES_NS = (10**6, 5 * 10**6, 50 * 10**6, 10**9 - 1, 10**9, 5 * 10**9, 60 * 10**9)

Sender = tuple[str, int]


class Side:
    """One engine with its crowd, and the cookies that the crowd got of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.crowd = Crowd(lab)
        self.cookies: dict[Sender, bytes] = {}
        lab.engine.set_handshake_keys(KEYS)
        lab.advance(3600)

    def ask(self, message: bytes, sender: Sender, *, has_cookie: bool) -> tuple[bool, int]:
        """Send a message, its MACs appended; return if it was heard, and how often answered."""
        message += mac(KEYS.mac1, message)
        cookie = self.cookies.get(sender) if has_cookie else None
        message += bytes(16) if cookie is None else mac(cookie, message)
        was_heard = self.crowd.send(message, *sender)
        replies = self.lab.sent(self.crowd.socket(*sender))
        for reply in replies:
            self.cookies[sender] = cookie_in(reply, message)
        return was_heard, len(replies)

    def take(self, count: int) -> list[tuple[bytes, Sender]]:
        """Take so many messages; without MAC2, since each engine has a secret of its own."""
        taken = self.lab.engine.take_handshakes(count)
        return [(m.datagram[:76], (m.source.host, m.source.port)) for m in taken]

    def figures(self) -> tuple[Drops, Load, QueueDepths]:
        engine = self.lab.engine
        return engine.drops, engine.load(), engine.queue_depths()

    def close(self) -> None:
        self.crowd.close()
        self.lab.close()


def alike(answers: Iterable[object]) -> None:
    one, other = answers
    assert one == other


def test_both_gates_judge_alike() -> None:
    require_engine(NATIVE)
    sides = Side(Lab()), Side(NativeLab())
    random = Random(1)
    indices = [5]  # of which the first was never used
    messages: list[bytes] = []
    for step in range(STEPS):
        sender = random.choice(HOSTS), random.choice((9, 9, 9, 10))
        has_cookie = random.random() < 0.5
        index = random.choice(indices[-3:] + indices[:1])
        body = random.randbytes(4)
        match random.choices(range(8), (2, 3, 2, 1, 24, 3, 55, 10))[0]:
            case 0:
                pause_ns = random.choice(PAUSES_NS)
                for side in sides:
                    side.lab.clock.advance(pause_ns)
            case 1:
                count = random.choice((1, 16, 64, 2000))
                alike(side.take(count) for side in sides)
            case 2:
                indices.append(1000 + step)
                for side in sides:
                    side.lab.engine.send_to_peer(A, struct.pack("<II", 1, 1000 + step) + bytes(140))
            case 3:
                for side in sides:
                    source = Endpoint(*sender, 0, Source(OUR_ADDRESS, 1))
                    side.lab.engine.note_received(B, 148, source)
            case 4:
                for _ in range(random.choice((5, 40, 140))):
                    message = struct.pack("<I", 1) + random.randbytes(112)
                    flooder = ("198.51.100.1", 9)
                    alike(side.ask(message, flooder, has_cookie=False) for side in sides)
            case 5:
                message = struct.pack("<II", 3, index) + random.randbytes(56)
                alike(side.crowd.send(message, *sender) for side in sides)
            case kind:
                message = struct.pack("<I", 1) + body + random.randbytes(108)
                if kind == 7:
                    message = struct.pack("<I", 2) + body + struct.pack("<I", index)
                    message += random.randbytes(48)
                if messages and random.random() < 0.1:
                    message = random.choice(messages[-20:])
                messages.append(message)
                alike(side.ask(message, sender, has_cookie=has_cookie) for side in sides)
        alike(side.figures() for side in sides)
    drops, load, _depths = sides[0].figures()
    assert drops.repeated_handshake > 10
    assert load.cookies_sent > 500
    for side in sides:
        side.close()
