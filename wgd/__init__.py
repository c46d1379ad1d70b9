"""wgd: a userspace WireGuard daemon, one process per interface."""

__version__ = "0.1.0"
