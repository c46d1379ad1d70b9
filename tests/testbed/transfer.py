"""TCP through a tunnel with every byte compared, which iperf3 does not do."""

import hashlib
import random
import socket
import threading

from tests.testbed.namespaces import Namespace

_TIMEOUT_SECONDS = 30


def transfer(sender: Namespace, receiver: Namespace, address: str, size: int) -> None:
    """Send `size` bytes to `address` of the receiver; AssertionError unless they arrive as sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    content = random.Random(size).randbytes(size)
    received = hashlib.sha256()
    with (
        receiver.socket(family, socket.SOCK_STREAM) as listener,
        sender.socket(family, socket.SOCK_STREAM) as client,
    ):
        listener.settimeout(_TIMEOUT_SECONDS)
        client.settimeout(_TIMEOUT_SECONDS)
        listener.bind((address, 0))
        listener.listen()
        client.connect((address, listener.getsockname()[1]))
        server, _ = listener.accept()
        with server:
            server.settimeout(_TIMEOUT_SECONDS)

            def receive() -> None:
                while chunk := server.recv(1 << 16):
                    received.update(chunk)

            thread = threading.Thread(target=receive)
            thread.start()
            try:
                client.sendall(content)
                client.shutdown(socket.SHUT_WR)
            finally:
                thread.join(_TIMEOUT_SECONDS)
    assert received.digest() == hashlib.sha256(content).digest(), "the bytes changed on the way"
