"""References for the energies of candidates: elements alone, crystals such as those of training, or a file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pymatgen.core import Element

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions
from crystens.energies.entry_files import read_hull_reference
from crystens.energies.hull_entries import HullReference, ground_states, self_consistent
from crystens.energies.potentials import MP2020, Potential
from crystens.errors import CrystensError
from crystens.ingest.generated import JudgingLimits
from crystens.ingest.kinds import open_source
from crystens.sources.source import read_all

log = logging.getLogger(__name__)

WHOLE = "all"  # splits of a source


@dataclass(frozen=True)
class KnownCrystals:
    """Real crystals, such as those that a model was trained on.

    Attributes:
        name: what they are, for titles.
        names: of each, the file it is in and which one in that file.
        crystals: the crystals.
        left_out: how many entries of the source cannot be compared with, by reason; of every split.
    """

    name: str
    names: tuple[str, ...] = ()
    crystals: tuple[Crystal, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)


def read_known(path: str, split: str | None = None) -> KnownCrystals:
    """Return the ordered crystals of a source, those of any size and however bad: a copy of one is not novel.

    Crystals that cannot be read are counted, and a warning says so.

    Args:
        path: of the source.
        split: "train", "val", "test" or `WHOLE`; None takes train where the source gives splits, and everything where
            not.

    Raises:
        CrystensError: if there is nothing usable, or no such split.
    """
    entries, rejects = read_all(open_source(path), JudgingLimits())
    part = split or ("train" if any(entry.split for entry in entries) else WHOLE)
    taken = [entry for entry in entries if part in (WHOLE, entry.split)]
    if not taken:
        raise CrystensError(f"{path} has no crystals of the split {part}; give another split, or {WHOLE}")
    reasons = Counter(reject.category for reject in rejects)
    if rejects:
        log.warning(
            "%d entries of %s are left out, so that nothing is compared with them: %s",
            len(rejects),
            path,
            ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()),
        )
    kind = "structures" if part == WHOLE else "training structures" if part == "train" else f"{part} structures"
    name = f"{len(taken)} {kind} of {Path(path).resolve().name}"
    names = tuple(f"{entry.file} {entry.entry}".strip() for entry in taken)
    return KnownCrystals(name, names, tuple(entry.crystal for entry in taken), dict(reasons))


def reference_of(
    samples: Sequence[Crystal],
    potential: Potential,
    options: EnergyOptions,
    known: KnownCrystals | None = None,
    entries: str | None = None,
    scale: str = MP2020,
    progress: Callable[[int], None] | None = None,
) -> HullReference:
    """Return what samples are compared with.

    Args:
        samples: the crystals that will be compared: all of their elements are in a reference by the potential.
        potential: what gives energies.
        options: how they are computed; known crystals are taken as they stand.
        known: real crystals; their energies and those of elements, all by the potential, make the hull.
        entries: a file of energies that makes the hull instead, see `read_hull_reference`.
        scale: the scale of the energies in that file.
        progress: called with the number of known crystals that are done.

    Without known crystals and without a file only elements are there, by the potential: an energy above hull is then
    the formation energy over again.

    Raises:
        CrystensError: if a file cannot be read, or nothing has an energy.
    """
    if entries is not None:
        return read_hull_reference(entries, scale)
    if known is not None:
        name = f"{known.name} and elements, by {potential.identity}"
        return self_consistent(known.crystals, potential, options, name, samples, progress)
    symbols = {Element.from_Z(int(z)).symbol for crystal in samples for z in set(crystal.numbers.tolist())}
    found, _ = ground_states(symbols, potential, options)
    return HullReference(found, potential.identity, f"elements by {potential.identity}")


def with_elements(
    reference: HullReference, numbers: set[int], potential: Potential, options: EnergyOptions
) -> HullReference:
    """Return a reference with the elements of these atomic numbers, where it is by the potential itself.

    A reference from a file stays as it is: what it lacks is unknown, for energies of two scales are never mixed.
    """
    missing = {Element.from_Z(number).symbol for number in numbers} - reference.elements.keys()
    if not missing or reference.scale != potential.identity:
        return reference
    found, _ = ground_states(missing, potential, options)
    return HullReference([*reference.entries, *found], reference.scale, reference.name, reference.left_out)
