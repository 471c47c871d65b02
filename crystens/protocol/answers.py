"""Assignment of samples to the references that they answer, for files that do not state it.

- `blocks`: k samples of the first reference, then k of the second, and so on.
- `rounds`: one sample of each reference, then one of each again, k times, as in DiffCSP's files.
- `composition`: a sample answers the references with the composition that it was asked for or, if that is unknown,
  with its own composition. Polymorphs (references of one composition) share its samples in order if there are k samples
  for each of them. If there are only k samples for the composition, every polymorph gets all of them.

It is an error if the number of samples is no multiple of that of references, or a composition matches no reference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crystens.chemistry.formulas import ReducedComposition, reduced_formula
from crystens.errors import CrystensError

ORDERS = ("blocks", "rounds", "composition")

_NONE = -1  # index of a missing sample


@dataclass(frozen=True, eq=False)
class Answers:
    """The samples of each reference.

    Attributes:
        references: (n,) indices of the references that are judged, ascending.
        samples: (n, k) indices of their samples, -1 where there is none.
        statement: a sentence that says how samples were assigned.
    """

    references: np.ndarray
    samples: np.ndarray
    statement: str


def find_answers(
    references: Sequence[ReducedComposition],
    samples: Sequence[ReducedComposition | None],
    asked: Sequence[ReducedComposition] | None = None,
    each: int | None = None,
    order: str | None = None,
    rounds: int | None = None,
) -> Answers:
    """Return the assignment of samples to references.

    Args:
        references: compositions of the n references.
        samples: compositions of all samples in their order, None for failed samples.
        asked: compositions that the samples were asked for; None if unknown.
        each: the number k; None infers it.
        order: one of `ORDERS`. None takes `composition` if `asked` is known, otherwise `blocks` or `rounds`, whichever
            gives more samples the composition of their reference.
        rounds: number of rounds that the file states, if k > 1.

    Raises:
        CrystensError: if there is no reference or no sample, or their numbers or compositions do not fit.
    """
    if not references or not samples:
        raise CrystensError(f"{len(samples)} samples of {len(references)} references: there is nothing to judge")
    if each is not None and each < 1:
        raise CrystensError(f"--each must be at least 1, got {each}")
    if order == "composition" or (order is None and asked is not None):
        return _by_composition(references, samples if asked is None else asked, each, asked is not None)
    k = _each(len(references), len(samples), each)
    places = {
        "blocks": np.arange(len(samples)).reshape(len(references), k),
        "rounds": np.arange(len(samples)).reshape(k, len(references)).T,
    }
    if order is None and rounds is not None and rounds == k:
        order = "rounds"
    shares = {name: _share(references, samples, own) for name, own in places.items()}
    if order is None:
        if k > 1 and len(references) > 1 and shares["blocks"] == shares["rounds"]:
            raise CrystensError(
                f"{len(samples)} samples are {k} for each of {len(references)} references, but their compositions do "
                f"not reveal the order: give --order blocks ({k} of the first, then {k} of the second) or --order "
                "rounds (one of each, then one of each again)"
            )
        order = max(shares, key=lambda name: shares[name])
    if shares[order] < 0.5:
        row, column = next(
            (row, column)
            for row, own in enumerate(places[order].tolist())
            for column, place in enumerate(own)
            if samples[place] is not None and samples[place] != references[row]
        )
        place = int(places[order][row, column])
        raise CrystensError(
            f"the samples are not in the order of the references: read in {order}, {100 * shares[order]:.0f} % have "
            f"the composition of their reference; sample {place} is {_formula(samples[place])} and reference {row} is "
            f"{_formula(references[row])}. Sort them, or give --order composition"
        )
    how = "one sample for each reference" if k == 1 else f"{k} samples for each reference, in {order}"
    return Answers(
        np.arange(len(references)), places[order], f"{how}, in the order of the {len(references)} references"
    )


def _each(references: int, samples: int, each: int | None) -> int:
    """Return the number of samples for each reference, if they are in order."""
    k, rest = divmod(samples, references)
    if rest or not k:
        raise CrystensError(
            f"{samples} samples are no multiple of {references} references, and failed samples must be in the file "
            "too: give --first N if they are of the first N references, --reference-number if references were drawn "
            "at random, or --order composition"
        )
    if each is not None and each != k:
        raise CrystensError(
            f"{samples} samples are {k} for each of {references} references, but --each is {each}; leave it out"
        )
    return k


def _share(
    references: Sequence[ReducedComposition], samples: Sequence[ReducedComposition | None], places: np.ndarray
) -> float:
    """Return the share of decoded samples that have the composition of their reference; 1 without samples."""
    same = [
        samples[place] == reference
        for reference, own in zip(references, places.tolist(), strict=True)
        for place in own
        if samples[place] is not None
    ]
    return sum(same) / len(same) if same else 1.0


def _by_composition(
    references: Sequence[ReducedComposition],
    wanted: Sequence[ReducedComposition | None],
    each: int | None,
    asked: bool,
) -> Answers:
    """Return the samples of each reference by composition; references without samples are left out."""
    rows, places = _grouped(references), _grouped(wanted)
    for composition, own in places.items():
        if composition not in rows:
            what = "was asked for" if asked else "is"
            advice = "" if asked else ", so that nobody knows which it answers; give --order blocks or --order rounds"
            raise CrystensError(
                f"sample {own[0]} {what} {_formula(composition)}, which none of {len(references)} references has"
                f"{advice}"
            )
    if not places:
        raise CrystensError("no sample has a composition, so that none can be given to a reference")
    k, shared = _dealt(rows, places, each, asked)
    kept = [row for row, composition in enumerate(references) if composition in places]
    found = np.full((len(references), k), _NONE)
    for composition, own in places.items():
        for number, row in enumerate(rows[composition]):
            part = own if shared else own[number * k : (number + 1) * k]
            found[row, : len(part)] = part
    how = "that they were asked for" if asked else "that they have"
    each_of = "composition, which answer all references of it" if shared else "reference"
    statement = f"up to {k} samples for each {each_of}, by the composition {how}; {len(kept)} of {len(references)}"
    return Answers(np.array(kept), found[kept], f"{statement} references have samples, and these are judged")


def _dealt(
    rows: dict[ReducedComposition, list[int]],
    places: dict[ReducedComposition, list[int]],
    each: int | None,
    asked: bool,
) -> tuple[int, bool]:
    """Return the number of samples for each reference, and whether all references of a composition share the samples.

    If the asked compositions are known, failed samples are counted too; otherwise failed samples are missing.
    """
    ratios = {composition: (len(own), len(rows[composition])) for composition, own in places.items()}
    largest = max(samples for samples, _ in ratios.values())
    k = each or max(-(-samples // own) for samples, own in ratios.values())
    if asked:
        if all(samples == k * own for samples, own in ratios.values()):
            return k, False
        if all(samples == (each or largest) for samples, _ in ratios.values()):
            return each or largest, True
    elif all(samples <= k * own for samples, own in ratios.values()):
        return k, False
    composition, (samples, own) = next(
        item for item in ratios.items() if item[1][0] > k * item[1][1] or (asked and item[1][0] != k * item[1][1])
    )
    raise CrystensError(
        f"{samples} samples of {_formula(composition)} are not {k} for each of its {own} references"
        + (f", nor {each or largest} for all of them together; " if asked else "; ")
        + ("ask for each reference equally often, or for each composition" if asked else "give another --each")
    )


def _grouped(compositions: Sequence[ReducedComposition | None]) -> dict[ReducedComposition, list[int]]:
    """Return the indices of each composition."""
    found: dict[ReducedComposition, list[int]] = defaultdict(list)
    for place, composition in enumerate(compositions):
        if composition is not None:
            found[composition].append(place)
    return dict(found)


def _formula(composition: ReducedComposition | None) -> str:
    """Return the formula of a composition, for messages."""
    return "no crystal" if composition is None else reduced_formula(composition)
