"""Life under a service manager: readiness, handed descriptors, kept state, upgrades, privileges."""
