"""The errors of `wgdctl` itself; what a daemon or a socket did is told by the client's errors."""

from wgd.errors import WgdError


class UsageError(WgdError):
    """The words on the command line do not fit the subcommand: its usage is shown after the text.

    With an empty text only the usage is shown.
    """


class ValueTextError(WgdError):
    """A value could not be read; the text says what it must be and holds no key."""


class ConfigFileError(WgdError):
    """A configuration file could not be read or understood; the text names file and line."""
