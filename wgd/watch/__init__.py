"""Watching a daemon without root: Prometheus metrics and the status of the peers over HTTP."""
