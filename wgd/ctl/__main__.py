"""`python -m wgd.ctl` is `wgdctl`."""

from wgd.ctl.main import main

main()
