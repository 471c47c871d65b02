"""How far do real crystals lie below a hull that does not contain them? See README.md.

python experiments/sun/depth.py DATA/mp_52 [--number N]
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import defaultdict

import numpy as np
from pymatgen.core import Composition

from crystens.chemistry.formulas import formula_sum, reduced_composition
from crystens.energies.hull import _Hull
from crystens.energies.hull_entries import ReferenceEntry
from crystens.ingest.generated import JudgingLimits
from crystens.ingest.kinds import open_source
from crystens.sources.record import Entry

_ENERGY = "formation_energy_per_atom"


def main() -> None:
    """Print how far some crystals lie below the hull of all other crystals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--number", type=int, default=700)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    items = open_source(options.data).keeping([_ENERGY]).read(JudgingLimits())
    known = [_entry(item) for item in items if isinstance(item, Entry)]
    elements = sorted({element.symbol for entry in known for element in entry.composition})
    of_element = defaultdict(list)
    for entry in [*known, *(ReferenceEntry(Composition(symbol), 0.0, symbol) for symbol in elements)]:
        for element in entry.composition:
            of_element[element.symbol].append(entry)
    depths, of_all = [], []
    for place in np.random.default_rng(0).permutation(len(known))[: options.number]:
        left_out = known[place]
        system = frozenset(element.symbol for element in left_out.composition)
        others = {id(entry): entry for symbol in system for entry in of_element[symbol] if entry is not left_out}
        entries = [entry for entry in others.values() if {e.symbol for e in entry.composition} <= system]
        if any(len(entry.composition) > 1 for entry in entries):
            depths.append(_Hull(entries, system).lowest(left_out.composition)[0] - left_out.per_atom)
            of_all.append(sum(len(entry.composition) == len(system) for entry in entries))
    below, competing = np.array(depths), np.array(of_all)
    for least in (0, 1, 3, 5):
        some = below[competing >= least]
        told: dict[str, float] = {"compounds of all its elements, at least": least, "crystals": len(some)}
        told |= {f"share below {depth}": round(float((some > depth).mean()), 4) for depth in (0.3, 0.5, 1.0)}
        print(json.dumps(told | {"farthest": round(float(some.max()), 3)}), flush=True)


def _entry(item: Entry) -> ReferenceEntry:
    """Return the hull entry of a crystal with its formation energy, eV; elements have 0."""
    composition = Composition(formula_sum(reduced_composition(item.crystal.numbers)))
    energy = item.properties[_ENERGY] * composition.num_atoms
    return ReferenceEntry(composition, energy, item.entry)


if __name__ == "__main__":
    main()
