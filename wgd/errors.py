"""The errors wgd raises on purpose; all derive from `WgdError`."""

from wgd.diagnosis import FailureReason


class WgdError(Exception):
    """Something a user can mend: the message names the value and the cure, on one line."""


class ConfigurationError(WgdError):
    """A configuration was refused whole; `errno` is the positive number a UAPI client is told."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno


class HandshakeError(WgdError):
    """A handshake message was refused; the text says why, without key material.

    `reason` is what it counts as. What only opens ciphertexts cannot know which message they were
    from: whoever does gives the reason.
    """

    def __init__(
        self, message: str, reason: FailureReason = FailureReason.MALFORMED_MESSAGE
    ) -> None:
        super().__init__(message)
        self.reason = reason
