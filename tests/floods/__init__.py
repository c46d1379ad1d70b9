"""Floods: what established tunnels and newcomers keep while an attacker sends."""
