"""The errors of `wgd.quick`."""

from wgd.errors import WgdError


class QuickError(WgdError):
    """An interface could not be brought up, down or saved: what is in the way, and the cure."""
