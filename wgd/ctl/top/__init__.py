"""`wgdctl top`: the peers of this machine's interfaces, live."""
