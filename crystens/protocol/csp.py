"""Crystal structure prediction: metrics of samples that were asked for the compositions of real crystals.

Each reference is answered by k samples. A sample matches its reference by pymatgen's StructureMatcher (stol 0.5, ltol
0.3, angle_tol 10). The distance of a match is the matcher's root mean square displacement, divided by (V / N)^(1/3).

- `match_rate`: share of all references that one of their samples matches. Failed samples match nothing.
- `match_rate_of_valid`: the same with valid samples only: valid by structure and, if known, by composition. Papers use
  both rates. The rates of DiffCSP and CDVAE in the paper of DiffCSP are of valid samples.
- `rmse`, `rmse_of_valid`: mean over matched references of the smallest distance to a matching sample, or to a valid
  matching sample. References without a match do not enter.
- `metre`: share of references that any sample of their composition matches, also one drawn for another reference, so
  that polymorphs in exchanged order count. `crmse`: mean over all references of the smallest such distance, with stol
  for references without a match.

Sources: Jiao et al., "Crystal Structure Prediction by Joint Equivariant Diffusion" (DiffCSP), NeurIPS 2023, Sec. 5.1,
and scripts/compute_metrics.py of its public code, read for the definitions of validity and distance;
Hoellmer et al., "Open Materials Generation with Stochastic Interpolants", 2025 (METRe and cRMSE).
Differs from DiffCSP: there, a valid sample must have a fingerprint too, which few samples lack; and with one sample for
each reference (not with several) the reference must be valid as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crystens.chemistry.formulas import reduced_composition
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.matching.structure_matching import attempted
from crystens.metrics.entries import Metrics, entry, rate
from crystens.metrics.validity import is_structurally_valid
from crystens.processes.engines import PROCESSES, check_engine, open_pool
from crystens.processes.pool import Broken

LTOL, STOL, ANGLE_TOL = 0.3, 0.5, 10.0

_SECONDS = 600.0  # limit of processor time for the pairs of one reference
_MEMORY = 4.0  # GiB: memory limit of a worker beyond that of a fresh process
_CHUNK = 16  # references sent to a process at a time

Pairs = tuple[Crystal, list[Crystal]]  # a reference, and samples to compare it with


@dataclass(frozen=True, eq=False)
class Matches:
    """Distances of samples to the references of their composition.

    Attributes:
        own: (n, k) distance of each reference to its own samples, NaN without a match.
        any: (n,) smallest distance of each reference to a sample of its composition, NaN without a match; None if
            samples of other references were not compared.
        valid: (n, k) whether each sample is valid by structure.
        failures: pairs that could not be compared, which match nothing.
    """

    own: np.ndarray
    any: np.ndarray | None
    valid: np.ndarray
    failures: int

    def of(self, rows: np.ndarray) -> Matches:
        """Return the matches of some references, by a mask (n,); `failures` keeps the total."""
        return Matches(self.own[rows], None if self.any is None else self.any[rows], self.valid[rows], self.failures)


def find_matches_of_references(
    references: Sequence[Crystal],
    samples: Sequence[Sequence[Crystal | None]],
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    engine: str = PROCESSES,
    most_pairs: int | None = None,
) -> Matches:
    """Return distances of samples to the references that they answer, and to others of the same composition.

    Args:
        references: n real crystals.
        samples: k crystals for each reference, None where decoding failed.
        workers: number of processes; 1 uses this process.
        progress: called with the number of finished references.
        engine: kind of workers, one of `crystens.processes.engines.ENGINES`.
        most_pairs: samples of other references of the same composition are compared only up to this number of pairs;
            None always compares them.

    Raises:
        CrystensError: if references and samples differ in number.
    """
    counts = {len(own) for own in samples}
    if len(samples) != len(references) or len(counts) != 1 or not next(iter(counts)):
        raise CrystensError(
            f"{len(references)} references need equally many samples each, at least one; got samples of {len(samples)}"
        )
    each = counts.pop()
    flat = [crystal for own in samples for crystal in own]
    asked = _of_composition(references, flat)
    across = most_pairs is None or sum(map(len, asked)) <= most_pairs
    if not across:
        asked = [[place for place in places if place // each == row] for row, places in enumerate(asked)]
    tasks = [
        (reference, [crystal for place in places if (crystal := flat[place]) is not None])
        for reference, places in zip(references, asked, strict=True)
    ]
    own = np.full((len(references), each), np.nan)
    smallest = np.full(len(references), np.nan)
    failures = 0
    for row, answers in enumerate(_spread(tasks, workers, progress, engine)):
        for place, answer in zip(asked[row], answers, strict=True):
            failures += isinstance(answer, str)
            if not isinstance(answer, float):
                continue
            smallest[row] = np.fmin(smallest[row], answer)
            if place // each == row:
                own[row, place % each] = answer
    valid = np.array([crystal is not None and is_structurally_valid(crystal) for crystal in flat])
    return Matches(own, smallest if across else None, valid.reshape(-1, each), failures)


def csp_metrics(matches: Matches, passing: np.ndarray | None = None) -> Metrics:
    """Return the protocol's metrics, with one sample each and with all k.

    Args:
        matches: of n references.
        passing: (n,) whether the composition of each reference is valid, as it is then of samples that match it; None
            ignores compositions.
    """
    total, each = matches.own.shape
    valid = matches.valid if passing is None else matches.valid & passing[:, None]
    kind = "structure" if passing is None else "structure and composition"
    metrics: Metrics = {}
    for k in sorted({1, each}):
        at, what = ("", "one sample") if k == 1 else (f"_at_{k}", f"{k} samples")
        for of, which, own in (
            ("", "", matches.own),
            ("_of_valid", f", of those valid by {kind}", np.where(valid, matches.own, np.nan)),
        ):
            best = np.fmin.reduce(own[:, :k], axis=1)
            found = best[np.isfinite(best)]
            text = f"references that {what} of their own match(es){which}"
            metrics[f"match_rate{of}{at}"] = rate(len(found), total, text)
            text = f"mean over matched references of the smallest distance to {what}{which}"
            metrics[f"rmse{of}{at}"] = _mean(found, text)
    if matches.any is None:
        why = "not computed: more pairs of one composition than are compared"
        metrics["metre"] = entry(None, "1", why, 0)
        metrics["crmse"] = entry(None, "(V/N)^(1/3)", why, 0)
    else:
        metrics["metre"] = rate(
            int(np.isfinite(matches.any).sum()), total, "references that any sample of their composition matches"
        )
        filled = np.nan_to_num(matches.any, nan=STOL)
        metrics["crmse"] = _mean(filled, "mean over all references of that distance, stol where none matches")
    metrics["pairs_not_compared"] = entry(matches.failures, "1", "pairs that could not be compared, no match", total)
    return metrics


def _of_composition(references: Sequence[Crystal], samples: Sequence[Crystal | None]) -> list[list[int]]:
    """Return the indices of the samples with the composition of each reference."""
    places: dict[object, list[int]] = defaultdict(list)
    for place, crystal in enumerate(samples):
        if crystal is not None:
            places[reduced_composition(crystal.numbers)].append(place)
    return [places[reduced_composition(reference.numbers)] for reference in references]


def _mean(values: np.ndarray, meaning: str) -> dict[str, object]:
    """Return the entry of a mean distance, null without values."""
    return entry(float(values.mean()) if len(values) else None, "(V/N)^(1/3)", meaning, len(values))


def _spread(
    tasks: Sequence[Pairs], workers: int, progress: Callable[[int], None] | None, engine: str
) -> list[list[float | str | None]]:
    """Return the results of all tasks, in order, from this process or from workers."""
    check_engine(engine, workers)
    answers: list[list[float | str | None]] = [[] for _ in tasks]
    done = 0
    if workers <= 1 and engine == PROCESSES:
        for place, task in enumerate(tasks):
            answers[place] = _distances(task)
            done += 1
            if progress is not None:
                progress(done)
        return answers
    chunks = [list(range(start, min(start + _CHUNK, len(tasks)))) for start in range(0, len(tasks), _CHUNK)]
    given = ((number, [tasks[place] for place in chunk]) for number, chunk in enumerate(chunks))
    with open_pool(engine, workers, _SECONDS, _MEMORY, [__name__]) as pool:
        for number, parts in pool.chunked(given, _all_distances):
            made: list[list[float | str | None]] = []
            for items, found in parts:
                if isinstance(found, Broken):
                    made += [[found.reason] * len(samples) for _, samples in items]
                else:
                    made += found
            for place, answer in zip(chunks[number], made, strict=True):
                answers[place] = answer
            done += len(chunks[number])
            if progress is not None:
                progress(done)
    return answers


def _all_distances(tasks: Sequence[Pairs]) -> list[list[float | str | None]]:
    """Return `_distances` of each task."""
    return [_distances(task) for task in tasks]


def _distances(task: Pairs) -> list[float | str | None]:
    """Return the distance of a reference to each sample, None without a match, or why it cannot be compared."""
    reference, samples = task
    return [attempted(_distance, (sample, reference)) for sample in samples]


def _distance(pair: tuple[Crystal, Crystal]) -> float | None:
    """Return the root mean square displacement of a sample from a reference, None if they do not match."""
    from pymatgen.core.structure_matcher import StructureMatcher

    sample, reference = pair
    matcher = StructureMatcher(ltol=LTOL, stol=STOL, angle_tol=ANGLE_TOL)
    found = matcher.get_rms_dist(sample.to_structure(), reference.to_structure())
    return None if found is None else float(found[0])
