"""`wgdctl`: what `wg` does, for userspace devices in every place wgd knows.

`main` dispatches; `show` and `pretty` print, `config_file`, `set_syntax` and `values` read, `sync`
compares. All of it works on the typed values of `wgd.uapi.client`, and only `session` makes one.
"""
