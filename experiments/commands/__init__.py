"""The commands of `jaxdl`, a module each.

The first line of a module's docstring is `NAME ARGUMENTS: what it does`, which `jaxdl --help` shows. `Args` is the dataclass of
its flags, or a function from the command line to it where they depend on what is named there. `run(args)` does it and returns
what --json prints. A file here is a command; so is `jaxdl package.module` for a module of anyone's own.
"""
