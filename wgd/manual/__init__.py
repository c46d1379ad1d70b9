"""Man pages and shell completion, made from what the programs themselves say with `--help`.

`python -m wgd.manual DIRECTORY` writes all of them. Nothing of this runs in a daemon.

Two libraries were tried on `wgd`. argparse-manpage writes pages that `mandoc -T lint` complains
about, and takes other sections than the options only as ready-made troff; shtab completes for
parsers of argparse. `wgdctl` takes `wg`'s words, which no such parser describes, so for either it
would have had to be declared a second time.
"""
