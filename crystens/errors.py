"""The error that a user can correct.

A problem with an input, a file, a config value or the environment is raised as a `CrystensError`, whose message says
what was wrong, where, and what to do. The command line prints it as one line and exits with status 1. Any other
exception is a bug of crystens and keeps its traceback.
"""


class CrystensError(Exception):
    """The user's input cannot be used; the message says what is wrong, where, and what to do."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class without a message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
