"""`python -m wgd` is `wgd`."""

from wgd.cli import main

main()
