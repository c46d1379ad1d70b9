"""TUN devices: Linux, and one in memory for tests."""
