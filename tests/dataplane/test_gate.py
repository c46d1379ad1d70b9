"""Who is heard under load: by a cookie, as expected, or as one of few; and what others are told."""

import hashlib
import itertools
import os
import struct
from collections.abc import Iterator

import pytest
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from tests.dataplane.lab import OUR_ADDRESS, PORT, A, Lab
from wgd.addresses import Endpoint, Source
from wgd.dataplane.interface import Load
from wgd.net.memory import MemorySocket, Transit
from wgd.noise.cookie import HandshakeKeys

KEYS = HandshakeKeys(mac1=bytes(range(32)), reply=bytes(range(32, 64)))
MILLISECOND = 1_000_000
EVERYBODY = 20_000
"""More messages than anything here lets in at once."""


def mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def initiation(cookie: bytes | None = None, *, sender: int = 7) -> bytes:
    """An initiation like no other; without a cookie, its MAC2 is zeros."""
    body = struct.pack("<II", 1, sender) + os.urandom(108)
    body += mac(KEYS.mac1, body)
    return body + (bytes(16) if cookie is None else mac(cookie, body))


class Crowd:
    """Senders at any addresses, and what they are sent."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.sockets: dict[tuple[str, int], MemorySocket] = {}
        self._numbers = itertools.count()

    def socket(self, host: str, port: int = 9) -> MemorySocket:
        if (host, port) not in self.sockets:
            is_ipv6 = ":" in host
            name = f"{host} {port}"
            made = self.lab.network.host(name, host).bind(port=port, is_ipv6=is_ipv6)
            self.sockets[host, port] = made
        return self.sockets[host, port]

    def send(self, datagram: bytes, host: str, port: int = 9) -> bool:
        """Send; return whether it was queued for the control plane."""
        before = self.lab.engine.queue_depths().handshakes
        socket = self.socket(host, port)
        ours = "2001:db8::100" if ":" in host else OUR_ADDRESS
        socket.send(datagram, Endpoint(ours, PORT))
        self.lab.engine.receive_from_socket(self.lab.socket6 if ":" in host else self.lab.socket)
        return self.lab.engine.queue_depths().handshakes > before

    def heard(self, count: int, host: str, port: int = 9) -> int:
        """How many of so many initiations from one place are queued."""
        return sum(self.send(initiation(), host, port) for _ in range(count))

    def somebody_new(self) -> str:
        """Return an address that nobody has had yet."""
        number = next(self._numbers)
        return f"198.52.{number >> 8}.{number & 255}"

    def close(self) -> None:
        for socket in self.sockets.values():
            socket.close()


@pytest.fixture
def crowd(lab: Lab) -> Iterator[Crowd]:
    """A crowd, and a laboratory that knows its keys, an hour after it was made."""
    lab.engine.set_handshake_keys(KEYS)
    lab.advance(3600)
    made = Crowd(lab)
    yield made
    made.close()


@pytest.fixture
def load(lab: Lab, crowd: Crowd) -> None:
    """128 messages wait that came from one place."""
    assert crowd.heard(128, "198.51.100.1") == 128
    assert lab.engine.load() == Load(is_under_load=True, cookies_sent=0)


def use_up_the_share(crowd: Crowd) -> None:
    """Let 64 strangers be heard, who had been quiet: no other is for the next four milliseconds."""
    for _ in range(64):
        assert crowd.heard(1, crowd.somebody_new()) == 1


def replies(lab: Lab, crowd: Crowd, host: str, port: int = 9) -> list[bytes]:
    return lab.sent(crowd.socket(host, port))


def cookie_in(reply: bytes, datagram: bytes) -> bytes:
    """Open a cookie reply to a datagram as its sender does."""
    assert len(reply) == 64
    assert reply[:4] == b"\x03\0\0\0"
    assert reply[4:8] == datagram[4:8]
    return crypto_aead_xchacha20poly1305_ietf_decrypt(
        reply[32:], datagram[-32:-16], reply[8:32], KEYS.reply
    )


def ask_for_cookie(lab: Lab, crowd: Crowd, host: str, port: int = 9) -> bytes:
    datagram = initiation()
    assert not crowd.send(datagram, host, port)
    (reply,) = replies(lab, crowd, host, port)
    return cookie_in(reply, datagram)


# -- load ------------------------------------------------------------------------------------------


def test_an_eighth_of_the_queue_is_load_for_a_second(lab: Lab, crowd: Crowd) -> None:
    assert crowd.heard(127, "198.51.100.1") == 127
    assert not lab.engine.load().is_under_load
    assert crowd.heard(1, "198.51.100.1") == 1
    assert lab.engine.load().is_under_load
    lab.engine.take_handshakes(EVERYBODY)
    lab.clock.advance(999_999_999)
    assert lab.engine.load().is_under_load
    lab.clock.advance(1)
    assert not lab.engine.load().is_under_load


def test_cookie_replies_are_no_load(lab: Lab, crowd: Crowd) -> None:
    for index in range(1, 65):
        lab.engine.send_to_peer(A, struct.pack("<II", 1, index) + bytes(140))
        assert crowd.send(struct.pack("<II", 3, index) + os.urandom(56), "198.51.100.1")
    assert crowd.heard(64, "198.51.100.1") == 64
    assert not lab.engine.load().is_under_load


def test_waiting_messages_are_bounded_whoever_sends(lab: Lab, crowd: Crowd) -> None:
    for second in range(3):
        for number in range(400):
            crowd.heard(1, f"198.{51 + second}.{number >> 8}.{number & 255}")
        lab.advance(1)
    # In each second 128 until there is load, and what all strangers may send: 64 and no time.
    assert lab.engine.queue_depths().handshakes <= 128 + 3 * (64 + 1) + 256
    assert lab.engine.drops.under_load > 500


# -- a cookie --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["203.0.113.5", "2001:db8:5::1"])
@pytest.mark.usefixtures("load")
def test_a_cookie_reply_is_what_the_paper_says(lab: Lab, crowd: Crowd, host: str) -> None:
    use_up_the_share(crowd)
    datagram = initiation(sender=0xAABBCCDD)
    assert not crowd.send(datagram, host, 4242)
    (reply,) = replies(lab, crowd, host, 4242)
    assert len(cookie_in(reply, datagram)) == 16
    assert lab.engine.load().cookies_sent == 1
    assert lab.engine.drops.under_load == 1


@pytest.mark.usefixtures("load")
def test_a_cookie_is_bound_to_address_and_port(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    cookie = ask_for_cookie(lab, crowd, "203.0.113.5")
    assert not crowd.send(initiation(cookie), "203.0.113.5", 10)
    assert not crowd.send(initiation(cookie), "203.0.113.6", 9)
    assert crowd.send(initiation(cookie), "203.0.113.5", 9)
    assert ask_for_cookie(lab, crowd, "203.0.113.7") != cookie


@pytest.mark.usefixtures("load")
def test_mac2_covers_everything_before_it(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    cookie = ask_for_cookie(lab, crowd, "203.0.113.5")
    for place in (132, 140, 147):
        damaged = bytearray(initiation(cookie))
        damaged[place] ^= 1
        assert not crowd.send(bytes(damaged), "203.0.113.5")


def test_the_secret_lives_for_120_seconds(lab: Lab, crowd: Crowd) -> None:
    def flood() -> None:
        lab.engine.take_handshakes(EVERYBODY)
        crowd.heard(128, "198.51.100.1")
        use_up_the_share(crowd)

    flood()
    cookie = ask_for_cookie(lab, crowd, "203.0.113.5")
    lab.clock.advance(120_000_000_000 - 1)
    flood()
    assert ask_for_cookie(lab, crowd, "203.0.113.5") == cookie
    assert crowd.send(initiation(cookie), "203.0.113.5")
    lab.clock.advance(1)
    use_of_old = initiation(cookie)
    assert not crowd.send(use_of_old, "203.0.113.5")
    (reply,) = replies(lab, crowd, "203.0.113.5")
    assert cookie_in(reply, use_of_old) != cookie


@pytest.mark.usefixtures("load")
def test_other_keys_mean_another_secret(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    cookie = ask_for_cookie(lab, crowd, "203.0.113.5")
    lab.engine.set_handshake_keys(KEYS)
    use_up_the_share(crowd)
    assert ask_for_cookie(lab, crowd, "203.0.113.5") != cookie


@pytest.mark.usefixtures("load")
def test_proven_sources_get_twenty_a_second(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    cookie = ask_for_cookie(lab, crowd, "203.0.113.5")

    def heard(count: int) -> int:
        return sum(crowd.send(initiation(cookie), "203.0.113.5") for _ in range(count))

    assert heard(8) == 5
    assert replies(lab, crowd, "203.0.113.5") == [], "it has a cookie"
    lab.clock.advance(50 * MILLISECOND)
    assert heard(2) == 1


@pytest.mark.usefixtures("load")
def test_what_is_claimed_takes_nothing_of_what_is_proven(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    cookie = ask_for_cookie(lab, crowd, "203.0.113.5")
    crowd.heard(1000, "203.0.113.5")
    assert crowd.send(initiation(cookie), "203.0.113.5")


def test_a_cookie_reply_leaves_marked_and_from_the_address_that_was_asked(
    lab: Lab, crowd: Crowd
) -> None:
    second = "192.0.2.101"
    crowd.heard(128, "198.51.100.1")
    use_up_the_share(crowd)
    lab.host.addresses = (OUR_ADDRESS, second)
    left_from: list[tuple[str, int]] = []

    def watch(transit: Transit) -> tuple[int, ...]:
        left_from.append((transit.source.host, transit.traffic_class))
        return (0,)

    lab.network.fate = watch
    for ours in (second, OUR_ADDRESS):
        crowd.socket("203.0.113.5").send(initiation(), Endpoint(ours, PORT))
        lab.engine.receive_from_socket(lab.socket)
    assert left_from[1::2] == [(second, 0x88), (OUR_ADDRESS, 0x88)]


@pytest.mark.usefixtures("load")
def test_a_cookie_reply_that_cannot_be_sent_is_nobodys_fault(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    lab.socket.send_errors.extend([101, 101])
    crowd.heard(1, "203.0.113.5")
    assert lab.engine.faults(A) == ()
    assert lab.engine.drops.send_failed == 1


# -- how many cookie replies -----------------------------------------------------------------------


@pytest.mark.usefixtures("load")
def test_one_source_is_told_twenty_times_a_second_and_then_from_the_spare_ones(
    lab: Lab, crowd: Crowd
) -> None:
    use_up_the_share(crowd)
    crowd.heard(300, "203.0.113.5")
    assert lab.engine.load().cookies_sent == 1 + 5 + 200, "the first as it had been quiet"
    lab.clock.advance(50 * MILLISECOND)
    assert crowd.heard(200, "203.0.113.5") == 3, "strangers have a share again"
    assert lab.engine.load().cookies_sent == 1 + 5 + 200 + 1 + 100


@pytest.mark.usefixtures("load")
def test_one_source_takes_no_cookies_of_another(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    crowd.heard(2000, "203.0.113.5")
    ask_for_cookie(lab, crowd, "203.0.113.6")


@pytest.mark.usefixtures("load")
def test_who_is_impersonated_gets_a_cookie_all_the_same(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    crowd.heard(100, "203.0.113.5", 4242)  # from somebody else
    replies(lab, crowd, "203.0.113.5", 4242)
    cookie = ask_for_cookie(lab, crowd, "203.0.113.5", 4242)
    assert crowd.send(initiation(cookie), "203.0.113.5", 4242)


@pytest.mark.usefixtures("load")
def test_an_ipv6_64_is_one_source(lab: Lab, crowd: Crowd) -> None:
    heard = sum(crowd.heard(1, f"2001:db8:5:6::{number:x}") for number in range(1, 301))
    assert heard == 5
    assert lab.engine.load().cookies_sent == 5 + 200
    assert crowd.heard(1, "2001:db8:5:7::1") == 1


# -- strangers -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("load")
def test_a_flood_from_one_address_keeps_nobody_else_out(lab: Lab, crowd: Crowd) -> None:
    assert crowd.heard(2000, "198.51.100.1") == 5
    assert crowd.heard(1, "203.0.113.5") == 1
    lab.advance(0.5)
    assert crowd.heard(100, "198.51.100.1") == 0
    lab.advance(0.499)
    assert crowd.heard(1, "203.0.113.6") == 1


@pytest.mark.usefixtures("load")
def test_all_strangers_together_are_heard_256_times_a_second(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    heard = 0
    for number in range(500):
        lab.clock.advance(MILLISECOND)
        heard += crowd.heard(1, f"198.18.{number >> 8}.{number & 255}")
    assert 127 <= heard <= 129


def flood_from_a_thousand(lab: Lab, crowd: Crowd, milliseconds: int) -> int:
    """Let one of a thousand addresses send in each millisecond; return how many are heard."""
    heard = 0
    for number in range(milliseconds):
        lab.clock.advance(MILLISECOND)
        heard += crowd.heard(1, f"198.18.{number % 1000 >> 8}.{number % 1000 & 255}")
    return heard


@pytest.mark.usefixtures("load")
def test_who_had_been_quiet_is_heard_amid_a_flood_from_many_addresses(
    lab: Lab, crowd: Crowd
) -> None:
    first = flood_from_a_thousand(lab, crowd, 1000)
    assert 310 <= first <= 256 + 64, "all had been quiet"
    assert crowd.heard(1, "203.0.113.5") == 0
    for second in range(1, 5):
        later = flood_from_a_thousand(lab, crowd, 1000)
        assert 63 <= later <= 65
        assert crowd.heard(1, f"203.0.113.{second}") == 1


@pytest.mark.usefixtures("load")
def test_who_has_sent_is_quiet_again_after_two_minutes_at_most(lab: Lab, crowd: Crowd) -> None:
    sooner, later = "203.0.113.5", "203.0.113.6"
    flood_from_a_thousand(lab, crowd, 1000)
    assert crowd.heard(1, later) == crowd.heard(1, sooner) == 0
    flood_from_a_thousand(lab, crowd, 1000)
    lab.advance(57)
    flood_from_a_thousand(lab, crowd, 1000)
    assert crowd.heard(1, sooner) == 0
    lab.advance(57)
    flood_from_a_thousand(lab, crowd, 5000)
    assert crowd.heard(1, later) == 1


@pytest.mark.usefixtures("load")
def test_cookies_of_those_that_had_been_quiet_are_not_used_up_by_others(
    lab: Lab, crowd: Crowd
) -> None:
    use_up_the_share(crowd)
    for _ in range(2):
        for number in range(1000):
            crowd.heard(2, f"198.18.{number >> 8}.{number & 255}")
    sent = lab.engine.load().cookies_sent
    assert sent == 1000 + 800 + 200
    crowd.heard(1, "198.18.0.1")
    assert lab.engine.load().cookies_sent == sent
    ask_for_cookie(lab, crowd, "203.0.113.6")


# -- who is expected -------------------------------------------------------------------------------


@pytest.mark.usefixtures("load")
def test_a_peer_is_heard_where_it_is(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    lab.inbound(initiation(), lab.at_a)
    assert lab.engine.take_handshakes(EVERYBODY)[-1].source.host == "192.0.2.1"
    assert crowd.heard(1, "192.0.2.1", 9) == 0, "at another port of that address it is a stranger"
    assert lab.sent(lab.at_a) == []


@pytest.mark.usefixtures("load")
def test_where_a_peer_is_said_to_be_five_messages_are_heard_and_one_a_second(
    lab: Lab, crowd: Crowd
) -> None:
    use_up_the_share(crowd)
    before = lab.engine.queue_depths().handshakes
    for _ in range(100):
        lab.inbound(initiation(), lab.at_a)
    assert lab.engine.queue_depths().handshakes == before + 5
    (reply, *_) = lab.sent(lab.at_a)
    assert reply[0] == 3
    lab.inbound(initiation(), lab.at_b)
    assert lab.engine.queue_depths().handshakes == before + 6


def test_a_neighbour_with_a_cookie_keeps_no_known_peer_out(lab: Lab, crowd: Crowd) -> None:
    peer, neighbour = "2001:db8:5::1", "2001:db8:5::2"  # one source, as rates see it
    lab.engine.note_received(A, 148, Endpoint(peer, 9, 0, Source("2001:db8::100", 1)))
    crowd.heard(128, "198.51.100.1")
    use_up_the_share(crowd)
    assert crowd.heard(5, peer) == 5
    cookie = ask_for_cookie(lab, crowd, peer)
    others = ask_for_cookie(lab, crowd, neighbour)
    lab.engine.take_handshakes(EVERYBODY)
    lab.advance(1)
    crowd.heard(128, "198.51.100.1")
    assert sum(crowd.send(initiation(others), neighbour) for _ in range(20)) == 5

    assert crowd.send(initiation(cookie), peer)
    assert not crowd.send(initiation(cookie), peer)
    assert replies(lab, crowd, peer) == [], "it has a cookie"


@pytest.mark.usefixtures("load")
def test_a_peer_that_has_moved_is_known_within_a_second(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)
    assert crowd.heard(1, "203.0.113.5") == 0
    lab.engine.note_received(A, 148, Endpoint("203.0.113.5", 9, 0, Source(OUR_ADDRESS, 1)))
    lab.clock.advance(999_999_999)
    crowd.heard(128, "198.51.100.2")
    lab.clock.advance(1)
    crowd.heard(128, "198.51.100.2")
    before = lab.engine.queue_depths().handshakes
    for number in range(300):
        crowd.heard(1, f"198.51.102.{number & 255}")
    assert crowd.heard(1, "203.0.113.5") == 1
    assert lab.engine.queue_depths().handshakes > before


@pytest.mark.usefixtures("load")
def test_a_response_is_heard_from_wherever_it_comes(lab: Lab, crowd: Crowd) -> None:
    use_up_the_share(crowd)

    def response(index: int) -> bytes:
        body = struct.pack("<III", 2, 7, index) + os.urandom(48)
        return body + mac(KEYS.mac1, body) + bytes(16)

    lab.engine.send_to_peer(A, struct.pack("<II", 1, 99) + bytes(140))
    lab.sent(lab.at_a)
    assert crowd.send(response(99), "203.0.113.5")
    assert not crowd.send(response(98), "203.0.113.5")
    assert replies(lab, crowd, "203.0.113.5") == []
    assert sum(crowd.send(response(99), "203.0.113.6") for _ in range(100)) == 4


# -- cookie replies to us --------------------------------------------------------------------------


def test_cookie_replies_to_one_index_are_few(lab: Lab, crowd: Crowd) -> None:
    lab.engine.send_to_peer(A, struct.pack("<II", 1, 99) + bytes(140))
    datagrams = [struct.pack("<II", 3, 99) + os.urandom(56) for _ in range(100)]
    assert sum(crowd.send(datagram, "203.0.113.5") for datagram in datagrams) == 5
    lab.advance(1)
    assert sum(crowd.send(datagram, "203.0.113.5") for datagram in datagrams) == 1
    crowd.heard(1, "203.0.113.5")
    assert len(lab.engine.take_handshakes(EVERYBODY)) == 7
