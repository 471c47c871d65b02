"""The one error that a person can mend.

Everything that is wrong with an input, a file, a config value or an environment is raised as a `CrystensError` whose
message says what was found, where, and what to do. The command line prints it as one line and exits with status 1;
every other exception is a defect of crystens and keeps its traceback.
"""


class CrystensError(Exception):
    """Something the user gave cannot be used; the message says what, where, and what to do."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
