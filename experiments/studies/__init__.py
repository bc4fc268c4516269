"""Studies: small experiments that show one thing each. `jaxdl study` lists them.

The first line of a module's docstring is its line of the list (`name: what it shows`); `Args` is a dataclass of its flags,
which extends `common.Args`, and `run(args)` returns what it found, writes it into `--out`, and draws it there.
"""
