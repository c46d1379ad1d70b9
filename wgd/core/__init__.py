"""The protocol's decisions, sans-IO: bytes and an `Instant` in, calls of the `DataPlane` out."""
