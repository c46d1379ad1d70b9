"""`wgdctl doctor`: what is wrong with a tunnel, in plain sentences, and what to try.

`gather` looks and `probe` asks the network a little; `facts` are what they bring. `rules` are pure:
facts in, findings out, each made from an entry of the `catalog`. `render` shows them, and `guide`
makes docs/troubleshooting.md of the same catalog.
"""
