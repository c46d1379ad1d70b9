"""UDP sockets, link and route events: Linux, and a network in memory for tests."""
