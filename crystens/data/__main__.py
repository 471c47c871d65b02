"""`python -m crystens.data summary SOURCE --out DIR`: what a source holds, and what of it cannot be used and why."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from crystens.data.cdvae import CSV_SUFFIXES, CdvaeSplits, CsvTable
from crystens.data.cif_folder import CifFolder
from crystens.data.dictionary import DICTIONARY_SUFFIXES, CrystalDictionary
from crystens.data.limits import Limits
from crystens.data.mp_3dsc import Mp3dsc
from crystens.data.prototypes import Prototypes
from crystens.data.sources import Source, existing, read_all
from crystens.data.summary import summarise
from crystens.errors import CrystensError

KINDS: dict[str, Callable[[str], Source]] = {
    "prototypes": lambda path: Prototypes(),
    "cif_folder": CifFolder,
    "csv": CsvTable,
    "crystal_dictionary": CrystalDictionary,
    "cdvae": lambda path: CdvaeSplits(path, Path(path).resolve().name),
    "mp_3dsc": Mp3dsc,
}


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
        source = KINDS[options.kind or guess_kind(options.source)](options.source)
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


def guess_kind(source: str) -> str:
    """Return the kind of a source by its name, and for a folder by what stands in it.

    Raises:
        CrystensError: if there is nothing at that path.
    """
    if source == "prototypes":
        return "prototypes"
    path = existing(source, "a folder, an archive, a .csv or .jsonl file, or the word prototypes")
    if path.is_dir():
        if (path / "splits.json").exists():
            return "mp_3dsc"
        return "cdvae" if any((path / f"train{suffix}").exists() for suffix in CSV_SUFFIXES) else "cif_folder"
    if path.name.lower().endswith(CSV_SUFFIXES):
        return "csv"
    return "crystal_dictionary" if path.name.lower().endswith(DICTIONARY_SUFFIXES) else "cif_folder"


if __name__ == "__main__":
    sys.exit(main())
