"""What a client of the configuration socket sends, before something happens to it."""

import random


def big_set(peers: int, seed: int) -> bytes:
    """Return a whole `set` that replaces all peers by so many, five lines each."""
    chance = random.Random(seed)
    text = "set=1\nreplace_peers=true\n" + "".join(
        f"public_key={chance.randbytes(32).hex()}\nendpoint=192.0.2.1:{1 + n % 60_000}\n"
        f"persistent_keepalive_interval=0\nreplace_allowed_ips=true\n"
        f"allowed_ip=10.{n // 65_536}.{n // 256 % 256}.{n % 256}/32\n"
        for n in range(peers)
    )
    return f"{text}\n".encode()


def lines_of(text: bytes) -> list[bytes]:
    """Return the lines with their ends."""
    return text.splitlines(keepends=True)
