"""The configuration socket: protocol, server, the file clients find it by."""
