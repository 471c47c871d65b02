"""Frame of every command: errors of one line, and the exit status.

A `CrystensError` and Ctrl-C are one line on standard error and no traceback; CRYSTENS_TRACEBACK=1 shows the traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from crystens.errors import CrystensError


def exit_status(run: Callable[[], object], interrupted: str = "interrupted") -> int:
    """Call `run` and return the exit status: 0, or 1 after a CrystensError, or 130 after Ctrl-C.

    Args:
        run: the work; its result is dropped.
        interrupted: printed after Ctrl-C; says how to resume.
    """
    try:
        run()
    except KeyboardInterrupt:
        return _ended(interrupted, 130)
    except CrystensError as error:
        if os.environ.get("CRYSTENS_TRACEBACK", "") not in ("", "0"):
            raise
        return _ended(str(error), 1)
    return 0


def run_command(run: Callable[[], str], resumes: str = "run the same command again to resume") -> int:
    """Run one of the commands that parse their own options, print the text it returns, and return the exit status.

    Args:
        run: does the work and returns the text for standard output.
        resumes: printed after Ctrl-C; says how to continue.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return exit_status(lambda: sys.stdout.write(run()), f"interrupted; {resumes}")


def _ended(reason: str, status: int) -> int:
    """Print why a command ends, after its other output, and return its status."""
    sys.stdout.flush()
    print(f"error: {reason}", file=sys.stderr)
    return status
