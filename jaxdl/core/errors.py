"""Errors of one sentence: what was given, what was expected and what to do."""


class JaxdlError(Exception):
    """Anything that jaxdl itself finds wrong. The command line prints the sentence, and a traceback only with --debug."""


class UserError(JaxdlError, ValueError):
    """What was asked for cannot be done as asked. The command line exits with status 2."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, of another run, or cannot be written."""


class DataError(UserError):
    """A dataset is missing, damaged or not what its name says."""


class EnvError(UserError):
    """An environment cannot be made, or did what an environment must not do."""


class EnvFailure(EnvError):
    """An environment failed while it was made, asked or closed, or did not answer. The command line exits with status 1."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type where the message is empty or cannot be had."""
    try:
        message = str(error)
    except Exception:  # the error is somebody else's, and so is how it is written
        message = ""
    return (message.strip().splitlines() or [type(error).__name__])[0]


def described(error: BaseException) -> str:
    """The type of an error and the first line of its message: "ValueError: no such game"."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


def in_a_sentence(error: BaseException) -> str:
    """What an error says: the sentence of one of jaxdl's own, `described` of others."""
    return str(error) if isinstance(error, JaxdlError) else described(error)
