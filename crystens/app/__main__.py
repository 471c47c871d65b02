"""`crystens app [MODEL ...]`: opens a page on this machine, on which a model is asked for crystals.

The page is served to this machine only, loads nothing from elsewhere and sends nothing anywhere. MODEL is a released
name, a checkpoint file or a run folder; without one, all released models are offered.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from crystens.checkpoint import released_names
from crystens.errors import CrystensError
from crystens.generator import Generator, load
from crystens.processes.command import run_command

_LIBRARIES = ("starlette", "uvicorn")
_PORT = 8642


def main(arguments: Sequence[str] | None = None, prog: str = "python -m crystens.app") -> int:
    """Run the command line and return its exit status; `prog` is how the command was called."""
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help="released name, checkpoint file or run folder; by default all released",
    )
    parser.add_argument(
        "--port", type=_port, default=_PORT, help=f"of this machine; by default {_PORT}, 0 for a free one"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1; by default CUDA where there is one")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    options = parser.parse_args(arguments)
    return run_command(lambda: _served(options), "the same command starts again")


def loaded(models: Sequence[str], device: str = "auto") -> dict[str, Generator]:
    """Return models by their names on the page: the last part of each path, with a number where that is taken.

    Raises:
        CrystensError: if one cannot be loaded.
    """
    found: dict[str, Generator] = {}
    for model in models:
        base = name = Path(model).resolve().name if Path(model).exists() else model
        while name in found:
            name = f"{base} ({int(name.removeprefix(base).strip(' ()') or 1) + 1})"
        found[name] = load(model, device)
    return found


def _served(options: argparse.Namespace) -> str:
    """Serve the page until Ctrl-C."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise CrystensError(f'the page needs {" and ".join(missing)}; run pip install "crystens[app]"')
    from crystens.app.server import serve

    with suppress(KeyboardInterrupt):  # the way in which a server ends
        serve(loaded(options.models or released_names(), options.device), options.port, not options.no_browser)
    return ""


def _port(text: str) -> int:
    """Return a port."""
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
