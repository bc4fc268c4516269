"""Commands of jaxdl as tests run them."""

import json

from jaxdl.experiments import cli


def run(capsys, *argv):
    """The JSON of a command."""
    assert cli.main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(capsys, *argv):
    """The sentence with which a command ends."""
    assert cli.main([str(word) for word in argv]) == 2
    return capsys.readouterr().err.splitlines()[-1]
