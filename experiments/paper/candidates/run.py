"""Cleaning applied to real crystals, unchanged and with a wrong element; see README.md.

python experiments/paper/candidates/run.py DIR/perov_5 [--number N] [--write FOLDER] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crystens.candidates.changes import largest
from crystens.candidates.cleaning import Cleaned, CleaningOptions, clean, substitutions_of
from crystens.candidates.generated import Sample
from crystens.candidates.neutrality import charge_verdict, repairs
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.ingest.kinds import open_source
from crystens.sources.limits import Limits
from crystens.sources.record import Entry
from crystens.sources.source import read_all

_MOVED = 0.01  # angstrom: less is the rounding of a relaxation, more is another structure
_SITES = 52  # the paper's most


def main() -> None:
    """Draw, clean, corrupt, count and write."""
    options = _arguments()
    entries = [entry for entry in read_all(open_source(options.real), Limits(max_sites=_SITES))[0] if _is_test(entry)]
    rng = np.random.default_rng(options.seed)
    drawn = sorted(rng.permutation(len(entries))[: options.number])
    crystals = [entries[place].crystal for place in drawn]
    if options.write is not None:
        options.write.mkdir(parents=True, exist_ok=True)
        for place in drawn[: options.written]:
            (options.write / f"{place:06d}.cif").write_text(write_cif(entries[place].crystal))
    cleaning = CleaningOptions(max_shift=options.max_shift)
    report = {
        "source": Path(options.real).name,
        "crystals": len(crystals),
        **{
            f"real, space group found within {tolerance} angstrom": _left_alone(
                crystals, replace(cleaning, found_tolerance=tolerance)
            )
            for tolerance in (0.1, 0.03, 0.01)
        },
        "one element wrong by 1": _recovered(crystals, cleaning, 1, np.random.default_rng(options.seed)),
        "one element wrong by 2": _recovered(crystals, cleaning, 2, np.random.default_rng(options.seed)),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{Path(options.real).name}.json").write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


def _left_alone(crystals: Sequence[Crystal], options: CleaningOptions) -> dict[str, Any]:
    """Return what cleaning changes in real crystals; of ties the first is taken, which changes no count here."""
    cleaned = [_cleaned(crystal, options) for crystal in crystals]
    moved = [largest(item.changes, "coordinates") for item in cleaned]
    same = [
        old.formula == new.crystal.formula and way <= _MOVED and not _has(new, "space group")
        for old, new, way in zip(crystals, cleaned, moved, strict=True)
    ]
    return {
        "charge as it stands": dict(Counter(charge_verdict(crystal, options.oxidation_states) for crystal in crystals)),
        "charge after": dict(Counter(item.charge for item in cleaned)),
        "composition changed": sum(_has(item, "element") for item in cleaned),
        "space group changed": sum(_has(item, "space group") for item in cleaned),
        f"a site moved more than {_MOVED} angstrom": sum(way > _MOVED for way in moved),
        "largest way of a site, angstrom": round(max(moved), 4),
        "cell changed": sum(_has(item, "cell") for item in cleaned),
        "origin moved": sum(_has(item, "origin") for item in cleaned),
        "composition and structure unchanged": sum(same),
        "no change at all": sum(not item.changes for item in cleaned),
    }


def _recovered(
    crystals: Sequence[Crystal], options: CleaningOptions, shift: int, rng: np.random.Generator
) -> dict[str, int]:
    """Return how often the right element comes back, of neutral crystals of which one element was made wrong."""
    found: Counter[str] = Counter()
    for crystal in crystals:
        if charge_verdict(crystal, options.oxidation_states) != "neutral":
            continue
        old = int(rng.choice(np.unique(crystal.numbers)))
        new = old + shift * int(rng.choice([-1, 1]))
        if not 1 <= new <= 94 or new in crystal.numbers:
            continue
        wrong = replace(crystal, numbers=np.where(crystal.numbers == old, new, crystal.numbers))
        found["crystals"] += 1
        verdict = charge_verdict(wrong, options.oxidation_states)
        if verdict != "not neutral":
            found[f"not noticed: {verdict}"] += 1
            continue
        formulas = [item.apply(wrong).formula for item in repairs(wrong, options.oxidation_states, options.max_shift)]
        if not formulas:
            found["noticed, no repair"] += 1
        elif crystal.formula not in formulas:
            found["noticed, repaired to another compound"] += 1
        else:
            found["noticed, repaired" if len(formulas) == 1 else "noticed, one of a tie for the energy to settle"] += 1
    return dict(sorted(found.items()))


def _cleaned(crystal: Crystal, options: CleaningOptions) -> Cleaned:
    """Return a crystal made clean, as one of which no space group is stated."""
    (substitution,) = substitutions_of([crystal], options, lambda tied: ([0.0] * len(tied), "place in the list"))
    return clean(Sample("", crystal), crystal, substitution, options)


def _has(cleaned: Cleaned, what: str) -> bool:
    """Return whether a kind of change was made."""
    return any(change.what == what for change in cleaned.changes)


def _is_test(entry: Entry) -> bool:
    """Return whether a crystal is held out; all are where the source has no splits."""
    return entry.split in (None, "test")


def _arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("real", help="source of real crystals, of which those of the split test are drawn")
    parser.add_argument("--number", type=int, default=400, help="how many are drawn; by default 400")
    parser.add_argument("--max-shift", type=int, default=2, help="as of the command; by default 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the first of them here, as CIFs")
    parser.add_argument("--written", type=int, default=50, help="how many of them; by default 50")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except CrystensError as error:
        sys.exit(f"error: {error}")
