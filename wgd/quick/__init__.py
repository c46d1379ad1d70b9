"""wg-quick's files carried out on wgd: an interface with its addresses, routes, DNS and hooks.

`lines` reads the file, `config` says what it means, `steps` changes the system and can take each
change back, `journal` remembers them across a crash, `up` puts them in order. `plan` is the same
inside the daemon (`wgd --config`).
"""
