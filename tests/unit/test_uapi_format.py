"""Proves what the answer to a get looks like, byte for byte, and that its parts stay small."""

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import DeviceState, PeerState
from wgd.uapi.format import end_of_answer, get_answer


def answer(state: DeviceState) -> bytes:
    return b"".join(get_answer(state))


def test_empty_device_says_only_errno() -> None:
    assert answer(DeviceState()) == b"errno=0\n\n"


def test_end_of_answer() -> None:
    assert end_of_answer(0) == b"errno=0\n\n"
    assert end_of_answer(-22) == b"errno=-22\n\n"
    assert len(end_of_answer(-2147483648)) <= 32


def test_whole_answer_in_the_order_of_wireguard_go() -> None:
    state = DeviceState(
        private_key=b"\xab" * 32,
        listen_port=51820,
        fwmark=4294967295,
        peers=(
            PeerState(
                public_key=b"\x01" * 32,
                preshared_key=b"\x02" * 32,
                endpoint=Endpoint("fe80::1", 1234, 7),
                last_handshake_ns=1_700_000_000_000_000_042,
                sent_bytes=2**64 - 1,
                received_bytes=3,
                persistent_keepalive_seconds=25,
                allowed_ips=(
                    Prefix(bytes((10, 0, 0, 0)), 8),
                    Prefix(bytes.fromhex("20010db8") + bytes(12), 32),
                ),
            ),
            PeerState(public_key=b"\x03" * 32, endpoint=Endpoint("192.0.2.1", 80)),
            PeerState(public_key=bytes(32)),
        ),
    )
    assert answer(state).decode() == (
        f"private_key={'ab' * 32}\n"
        "listen_port=51820\n"
        "fwmark=4294967295\n"
        f"public_key={'01' * 32}\n"
        f"preshared_key={'02' * 32}\n"
        "protocol_version=1\n"
        "endpoint=[fe80::1%7]:1234\n"
        "last_handshake_time_sec=1700000000\n"
        "last_handshake_time_nsec=42\n"
        "tx_bytes=18446744073709551615\n"
        "rx_bytes=3\n"
        "persistent_keepalive_interval=25\n"
        "allowed_ip=10.0.0.0/8\n"
        "allowed_ip=2001:db8::/32\n"
        f"public_key={'03' * 32}\n"
        f"preshared_key={'00' * 32}\n"
        "protocol_version=1\n"
        "endpoint=192.0.2.1:80\n"
        "last_handshake_time_sec=0\n"
        "last_handshake_time_nsec=0\n"
        "tx_bytes=0\n"
        "rx_bytes=0\n"
        "persistent_keepalive_interval=0\n"
        f"public_key={'00' * 32}\n"
        f"preshared_key={'00' * 32}\n"
        "protocol_version=1\n"
        "last_handshake_time_sec=0\n"
        "last_handshake_time_nsec=0\n"
        "tx_bytes=0\n"
        "rx_bytes=0\n"
        "persistent_keepalive_interval=0\n"
        "errno=0\n"
        "\n"
    )


def test_each_line_has_exactly_one_equals_sign() -> None:
    peer = PeerState(bytes(32), allowed_ips=(Prefix(bytes(16), 0), Prefix(bytes(4), 0)))
    lines = answer(DeviceState(b"\x01" * 32, 1, 1, (peer,))).decode().split("\n")
    assert lines[-2:] == ["", ""]
    assert all(line.count("=") == 1 for line in lines[:-2])


def test_many_peers_come_in_parts_none_missing() -> None:
    peers = tuple(PeerState(number.to_bytes(32, "big")) for number in range(5000))
    parts = list(get_answer(DeviceState(peers=peers)))
    assert len(parts) > 5
    assert max(map(len, parts)) < 1_000_000
    lines = b"".join(parts).split(b"\n")
    keys = [line.partition(b"=")[2].decode() for line in lines if line.startswith(b"public_key=")]
    assert keys == [f"{number:064x}" for number in range(5000)]
