"""The command `crystens`, with the code of train.py, sample.py, `python -m crystens.evaluate` and so on.

A command imports its modules when it is called, so that `crystens runs` does not wait for PyTorch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from crystens import __version__

_CONFIGURED = {
    "train": "train a model, sample it and judge the samples: key=value, --help lists the keys",
    "sample": "sample a trained model and judge the samples: key=value, --help lists the keys",
}
_MODULES = {
    "app": ("crystens.app.__main__", "a page on this machine: ask a model, look at its crystals, take CIFs home"),
    "evaluate": ("crystens.evaluate", "judge any generator's crystals"),
    "export": ("crystens.samples.export", "write crystals in formats for other judges"),
    "sun": ("crystens.sun.__main__", "stable, unique and novel samples"),
    "candidates": ("crystens.candidates.__main__", "candidates for density functional theory"),
    "data": ("crystens.data.__main__", "contents of a data set, leaks between its splits, and stores"),
    "runs": ("crystens.runs.__main__", "one table and one page of all runs"),
    "dashboard": ("crystens.dashboard.__main__", "the dashboard of a W&B project"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `crystens COMMAND ...` and return the exit status.

    Args:
        arguments: arguments of the command line, the command first; None takes those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    name, rest = next(iter(arguments), None), arguments[1:]
    if name in _CONFIGURED:
        configured(name, [sys.argv[0], name], rest)
        return 0
    if name in _MODULES:
        return int(importlib.import_module(_MODULES[name][0]).main(rest, prog=f"crystens {name}"))
    _parser().parse_args(arguments)  # --help, --version, or what is wrong with the command
    return 0


def configured(name: str, program: Sequence[str], arguments: Sequence[str]) -> None:
    """Run train or sample, whose options are keys of a config; exit with its status unless that is 0.

    Args:
        name: train or sample.
        program: the command without arguments, such as ["train.py"] or ["/bin/crystens", "train"].
        arguments: arguments of the command line.
    """
    from crystens.training import command_line, tasks

    command_line.main({"train": tasks.train, "sample": tasks.sample}[name], name, program, arguments)


def _parser() -> argparse.ArgumentParser:
    """Return the parser that lists the commands; each command parses its own arguments."""
    parser = argparse.ArgumentParser(
        prog="crystens",
        description="Generative models of crystals on one image-like encoding, CrysTens.",
        epilog="`crystens COMMAND --help` lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"crystens {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, about in (*_CONFIGURED.items(), *((name, about) for name, (_, about) in _MODULES.items())):
        commands.add_parser(name, help=about, add_help=False)
    return parser
