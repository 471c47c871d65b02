"""`python -m crystens.data summary SOURCE --out DIR`: what a source holds, and what of it cannot be used and why."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from crystens.data.kinds import KINDS, open_source
from crystens.data.limits import Limits
from crystens.data.sources import read_all
from crystens.data.summary import summarise
from crystens.errors import CrystensError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m crystens.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    summary = commands.add_parser("summary", help="count what a source holds; write summary.txt and rejected.csv")
    summary.add_argument("source", metavar="SOURCE", help="folder, archive, .csv, .jsonl, or the word prototypes")
    summary.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for summary.txt, rejected.csv")
    summary.add_argument("--kind", choices=sorted(KINDS), help="what SOURCE is; by default guessed from its name")
    summary.add_argument("--max-sites", type=int, help="set aside crystals with more sites; by default none")
    options = parser.parse_args(arguments)
    try:
        source = open_source(options.source, options.kind)
        entries, rejects = read_all(source, Limits(max_sites=options.max_sites), options.out / "rejected.csv")
    except CrystensError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    text = summarise(str(source), entries, rejects)
    (options.out / "summary.txt").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    if rejects:
        sys.stdout.write(f"\nreasons and advice, one by one: {options.out / 'rejected.csv'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
