"""The data plane: its interface, and the engine in plain Python."""
