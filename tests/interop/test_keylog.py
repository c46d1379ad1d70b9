"""Wireshark's dissector decrypts what was captured, given the key log of either end."""

import base64
import json
import os
import random as pseudo_random
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.testbed import Namespace, Testbed, Tunnel, daemon_command, only_wgd, require
from tests.testbed.namespaces import run
from wgd.clock import Instant
from wgd.keylog import KeyLog
from wgd.noise.cookie import CookieGenerator
from wgd.noise.handshake import Handshake, StaticIdentity, identify_initiator
from wgd.noise.keypair import Keypair
from wgd.noise.messages import TRANSPORT_HEADER, Initiation, MessageType, Response
from wgd.noise.primitives import clamp, seal

pytestmark = [pytest.mark.netns, pytest.mark.interop]

PORT = 51820
_ETH_P_ALL = 3
_LINKTYPE_RAW = 101
_PCAP_MAGIC = 0xA1B2C3D4


@pytest.fixture(autouse=True)
def _wireshark_is_there() -> None:
    require("tshark")


# -- captures --------------------------------------------------------------------------------------


def write_capture(path: Path, packets: list[bytes]) -> None:
    """Write IP packets as a capture file."""
    parts = [struct.pack("=IHHiIII", _PCAP_MAGIC, 2, 4, 0, 0, 65_535, _LINKTYPE_RAW)]
    for number, packet in enumerate(packets):
        parts += [struct.pack("=IIII", number, 0, len(packet), len(packet)), packet]
    path.write_bytes(b"".join(parts))


def ipv4(source: int, destination: int, protocol: int, payload: bytes) -> bytes:
    """Return a packet from 192.0.2.`source` without a checksum, which nobody here looks at."""
    addresses = bytes([192, 0, 2, source, 192, 0, 2, destination])
    length = 20 + len(payload)
    return struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, 64, protocol, 0) + addresses + payload


def udp(source: int, destination: int, payload: bytes) -> bytes:
    header = struct.pack(">HHHH", PORT, PORT, 8 + len(payload), 0)
    return ipv4(source, destination, socket.IPPROTO_UDP, header + payload)


def dissect(capture: Path, keys: Path, ports: set[int], home: Path) -> list[dict[str, Any]]:
    """Return the layers of each WireGuard packet as tshark sees them."""
    options = [word for port in ports for word in ("-d", f"udp.port=={port},wg")]
    completed = run(
        *("tshark", "-r", capture, "-Y", "wg", "-T", "json", "--no-duplicate-keys"),
        *("-o", f"wg.keylog_file:{keys}", *options),
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        timeout_seconds=120,
    )
    return [packet["_source"]["layers"] for packet in json.loads(completed.stdout)]


def static_keys(packets: list[dict[str, Any]]) -> list[str]:
    """Return who sent the initiations, as far as that could be decrypted."""
    return [layers["wg"]["wg.static"] for layers in packets if "wg.static" in layers["wg"]]


def pings(packets: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return type and data (hexadecimal) of the ICMP messages that were decrypted."""
    return [
        (layers["icmp"]["icmp.type"], layers["icmp"]["data"]["data.data"].replace(":", ""))
        for layers in packets
        if "icmp" in layers
    ]


# -- handshakes made in memory ---------------------------------------------------------------------


class Side:
    """One end of a handshake with a key log of its own."""

    def __init__(self, seed: int, path: Path) -> None:
        self._random = pseudo_random.Random(seed)
        self._last = b""
        self.private = self._random.randbytes(32)
        self.identity = StaticIdentity(self.private)
        self.log = KeyLog(path)

    def random(self, size: int) -> bytes:
        self._last = self._random.randbytes(size)
        return self._last

    def note(self, handshake: Handshake) -> None:
        """Note the ephemeral key that was made last."""
        self.log.note(
            local_static=self.private,
            remote_static=handshake.remote_static,
            local_ephemeral=clamp(self._last),
            preshared_key=handshake.preshared_key,
        )


def transport(keypair: Keypair, counter: int, packet: bytes) -> bytes:
    header = TRANSPORT_HEADER.pack(MessageType.TRANSPORT, keypair.remote_index, counter)
    padded = packet + bytes(-len(packet) % 16)
    return header + seal(keypair.send_key, counter, padded, b"")


def exchange(left: Side, right: Side, preshared_key: bytes, seconds: int) -> list[bytes]:
    """Return the packets of a handshake that `left` begins, and of a ping."""
    now = Instant(boot_ns=seconds * 10**9, wall_ns=(1_700_000_000 + seconds) * 10**9)
    begins = Handshake(left.identity, right.identity.public_key, preshared_key)
    answers = Handshake(right.identity, left.identity.public_key, preshared_key)

    initiation = begins.create_initiation(now, 1000 + seconds, left.random)
    left.note(begins)
    initiation = CookieGenerator(right.identity.public_key).add_macs(initiation, now.boot_ns)
    identified = identify_initiator(right.identity, Initiation.parse(initiation))
    answers.consume_initiation(identified, now.boot_ns)
    response = answers.create_response(2000 + seconds, right.random)
    right.note(answers)
    response = CookieGenerator(left.identity.public_key).add_macs(response, now.boot_ns)
    begins.consume_response(Response.parse(response))

    request = ipv4(101, 102, socket.IPPROTO_ICMP, bytes([8, 0, 0, 0]) + b"\0\7\0\1" + b"are you?")
    reply = ipv4(102, 101, socket.IPPROTO_ICMP, bytes([0, 0, 0, 0]) + b"\0\7\0\1" + b"I am...!")
    return [
        udp(1, 2, initiation),
        udp(2, 1, response),
        udp(1, 2, transport(begins.derive_keypair(now.boot_ns), 0, request)),
        udp(2, 1, transport(answers.derive_keypair(now.boot_ns), 0, reply)),
    ]


@pytest.mark.parametrize("end", ["initiator", "responder"])
@pytest.mark.parametrize("preshared_key", [bytes(32), bytes(range(32))], ids=["no_psk", "psk"])
def test_what_is_captured_can_be_read_with_the_keys_of_one_end(
    tmp_path: Path, end: str, preshared_key: bytes
) -> None:
    left, right = Side(1, tmp_path / "initiator"), Side(2, tmp_path / "responder")
    other = Side(3, tmp_path / "other")
    capture = tmp_path / "capture.pcap"
    # A second handshake, with another peer in between: static lines come again.
    exchanges = [
        exchange(left, right, preshared_key, 1),
        exchange(left, other, bytes(32), 2),
        exchange(left, right, preshared_key, 3),
    ]
    write_capture(capture, [*exchanges[0], *exchanges[2]])
    packets = dissect(capture, tmp_path / end, {PORT}, tmp_path)
    assert len(packets) == 8
    sender = base64.b64encode(left.identity.public_key).decode()
    assert static_keys(packets) == [sender] * 2
    assert pings(packets) == [("8", b"are you?".hex()), ("0", b"I am...!".hex())] * 2
    for side in (left, right, other):
        side.log.close()


def test_without_the_keys_nothing_can_be_read(tmp_path: Path) -> None:
    left, right = Side(1, tmp_path / "initiator"), Side(2, tmp_path / "responder")
    capture = tmp_path / "capture.pcap"
    write_capture(capture, exchange(left, right, bytes(32), 1))
    nobodys = tmp_path / "nobodys"
    nobodys.touch()
    packets = dissect(capture, nobodys, {PORT}, tmp_path)
    assert len(packets) == 4
    assert static_keys(packets) == []
    assert pings(packets) == []
    left.log.close()
    right.log.close()


# -- two daemons -----------------------------------------------------------------------------------


@contextmanager
def capturing(namespace: Namespace, path: Path) -> Iterator[None]:
    """Write what passes eth0 of a namespace to a capture file."""
    with namespace.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    with tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        with namespace.entered():
            tap.bind(("eth0", _ETH_P_ALL))
        yield
        packets = []
        while select.select([tap], [], [], 0)[0]:
            packet = tap.recv(65_536)
            if packet[0] >> 4 in (4, 6):  # and no ARP
                packets.append(packet)
        write_capture(path, packets)


@only_wgd("a key log")
@pytest.mark.parametrize("role", ["initiator", "responder"])
@pytest.mark.parametrize("with_preshared_key", [False, True], ids=["no_psk", "psk"])
def test_a_daemon_writes_the_keys_of_its_handshakes(
    testbed: Testbed, tmp_path: Path, role: str, with_preshared_key: bool
) -> None:
    keys, capture = tmp_path / "keys", tmp_path / "capture.pcap"
    command = [*daemon_command(), "--keylog", str(keys)]
    tunnel = Tunnel.build(
        testbed,
        with_preshared_key=with_preshared_key,
        left_command=command if role == "initiator" else None,
        right_command=command if role == "responder" else None,
    )
    with capturing(tunnel.left.namespace, capture):
        for _ in range(2):
            # One after the other: several at once would leave, and be captured, as one datagram.
            ping = tunnel.left.home.ping(tunnel.right.inner4, count=2, interval_seconds=0.5)
            assert ping.is_lossless, ping.output
            tunnel.left.bounce()
    ports = {tunnel.left.port, tunnel.right.port}
    packets = dissect(capture, keys, ports, tmp_path)
    assert static_keys(packets) == [tunnel.left.keys.public] * 2
    assert [kind for kind, _ in pings(packets)] == ["8", "0"] * 4
