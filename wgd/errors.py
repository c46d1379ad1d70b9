"""The errors wgd raises on purpose; all derive from `WgdError`."""


class WgdError(Exception):
    """Something a user can mend: the message names the value and the cure, on one line."""


class ConfigurationError(WgdError):
    """A configuration was refused whole; `errno` is the positive number a UAPI client is told."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno


class HandshakeError(WgdError):
    """A handshake message was refused; the text is the reason, without key material."""
