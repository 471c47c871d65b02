"""The protocol for judging crystal structure prediction, for samples in files or folders.

`crystens.protocol.csp` defines the rates and distances, which are computed with one sample for each reference and with
all k. `crystens.protocol.answers` assigns samples to references. A sample is valid if its structure is valid and its
composition passes smact's test, as in `crystens.protocol.cdvae_protocol`.

For comparison there are published rates, the rates of the baseline (`crystens.protocol.substitution`), and for Perov-5
the kinds of references (`crystens.protocol.perovskites`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crystens.chemistry.formulas import ReducedComposition, reduced_composition
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.metrics.by_num_sites import SIZE_RANGES, rows_by_num_sites
from crystens.metrics.crystal_table import CSP_COLUMNS, OK, Row
from crystens.metrics.entries import Metrics, entry, rate
from crystens.processes.engines import PROCESSES
from crystens.protocol.answers import Answers, find_answers
from crystens.protocol.composition_validity import PASSED, composition_verdict, states_name
from crystens.protocol.csp import ANGLE_TOL, LTOL, STOL, Matches, csp_metrics, find_matches_of_references
from crystens.protocol.judgement import Judgement, Stages, stage
from crystens.protocol.perovskites import DATA_SET, IN_TRAIN, NOT_IN_TRAIN, ONE_METAL, kinds, with_metals_exchanged
from crystens.protocol.substitution import substituted

MOST_PAIRS = 1_000_000

# (match rate, RMSE) of valid samples by data set, model and samples for each reference: Jiao et al., NeurIPS 2023,
# Table 2, with their adaptation of CDVAE to a given composition.
PUBLISHED: dict[str, dict[str, dict[int, tuple[float, float]]]] = {
    "perov_5": {
        "CDVAE": {1: (0.4531, 0.1138), 20: (0.8851, 0.0464)},
        "DiffCSP": {1: (0.5202, 0.0760), 20: (0.9860, 0.0128)},
    },
    "carbon_24": {
        "CDVAE": {1: (0.1709, 0.2969), 20: (0.8837, 0.2286)},
        "DiffCSP": {1: (0.1754, 0.2759), 20: (0.8847, 0.2192)},
    },
    "mp_20": {
        "CDVAE": {1: (0.3390, 0.1045), 20: (0.6695, 0.1026)},
        "DiffCSP": {1: (0.5149, 0.0631), 20: (0.7793, 0.0492)},
    },
}


@dataclass(frozen=True)
class CspOptions:
    """Options of the protocol.

    Attributes:
        data_set: name of the references' data set, to look up published rates.
        each: number of samples for each reference; None infers it.
        order: order of the samples in the file, see `crystens.protocol.answers`; None infers it.
        baseline: whether the substitution baseline is judged too.
        oxidation_states: smact's list of oxidation states for compositions.
        most_pairs: samples of other references of a composition are compared only up to this number of pairs.
        workers: number of processes; 1 uses this process.
        engine: kind of workers, one of `crystens.processes.engines.ENGINES`.
    """

    data_set: str | None = None
    each: int | None = None
    order: str | None = None
    baseline: bool = False
    oxidation_states: str = "smact14"
    most_pairs: int = MOST_PAIRS
    workers: int = 1
    engine: str = PROCESSES


class CspProtocol:
    """Judge of structure prediction, with the references that samples answer.

    Args:
        real: the references, usually the test split.
        name: name of the references, for messages.
        options: options of the protocol.
        asked: compositions that the samples were asked for, in their order; None if unknown.
        rounds: number of rounds of samples that the file states; None if it states none.
        train: function that reads the train split; None if there is none.

    Attributes:
        columns: columns that it adds to the rows of samples.

    Raises:
        CrystensError: if there is no reference, smact is not installed, or the baseline has no train split.
    """

    columns: tuple[str, ...] = CSP_COLUMNS

    def __init__(
        self,
        real: Sequence[Crystal],
        name: str,
        options: CspOptions,
        asked: Sequence[ReducedComposition] | None = None,
        rounds: int | None = None,
        train: Callable[[], Sequence[Crystal]] | None = None,
    ) -> None:
        if not real:
            raise CrystensError(f"{name} holds no crystal to compare with")
        if options.baseline and train is None:
            raise CrystensError(
                f"--baseline exchanges elements of train crystals, but {name} has no train split: give a reference "
                "with train, val and test, and judge val or test"
            )
        self.name = name
        self.options = options
        self._real = list(real)
        self._asked = asked
        self._rounds = rounds
        self._train = train
        self._states = states_name(options.oxidation_states)
        self._compositions = [reduced_composition(crystal.numbers) for crystal in self._real]
        self._exchanged: list[Crystal] = []
        if options.data_set == DATA_SET:
            self._exchanged = [with_metals_exchanged(crystal) for crystal in self._real]

    def check(self, crystals: Sequence[Crystal | None]) -> None:
        """Raise a CrystensError if samples (None for failed ones) do not fit the references."""
        self._answers(crystals)

    def judge(self, rows: Sequence[Row], crystals: Mapping[int, Crystal], progress: Stages | None = None) -> Judgement:
        """Return the results of the protocol for samples, see `crystens.protocol.judgement.Judge`.

        Raises:
            CrystensError: if the samples do not fit the references.
        """
        samples = [crystals.get(row["index"]) for row in rows]
        sound = [row["status"] == OK and bool(row["structurally_valid"]) for row in rows]
        answers = self._answers(samples)
        real = [self._real[place] for place in answers.references.tolist()]
        grid = [[None if place < 0 else samples[place] for place in own] for own in answers.samples.tolist()]
        passing = np.array([self._passes(crystal) for crystal in real])
        matches = self._matches(real, grid, progress, "comparing")
        matches = dataclasses.replace(
            matches, valid=np.where(answers.samples < 0, False, np.array(sound)[answers.samples])
        )
        metrics = csp_metrics(matches, passing)
        self._add_published(metrics)
        metrics |= self._counts(answers, samples)
        train = self._read_train(progress)
        if self.options.data_set == DATA_SET:
            metrics |= self._perovskites(answers.references, grid, matches, train, progress)
        baseline = None
        if self.options.baseline and train is not None:
            made = substituted(train, real, matches.own.shape[1], stage(progress, "exchanging elements", len(real)))
            baseline = self._matches(real, made, progress, "comparing the baseline")
            metrics |= {
                f"baseline_{name}": {
                    **one,
                    "description": f"of train crystals with elements exchanged: {one['description']}",
                }
                for name, one in csp_metrics(baseline, passing).items()
            }
        sizes = np.array([len(crystal) for crystal in real])
        every = [size for size in rows_by_num_sites(rows, sizes.tolist())]
        by_size = [{"num_sites": size, **_part(sizes == size, matches, passing, baseline)} for size in every]
        ranges = [
            {"sites": text, **_part(inside, matches, passing, baseline)}
            for low, high, text in SIZE_RANGES
            if (inside := (sizes > low) & (sizes <= high)).any()
        ]
        metrics["match_rate_by_num_sites"] = entry(
            len(ranges), "sizes", "groups of references by the number of their sites", len(real), sizes=ranges
        )
        return Judgement(_rows(rows, answers, matches), metrics, by_size, self._about(answers))

    def _answers(self, samples: Sequence[Crystal | None]) -> Answers:
        """Return the assignment of samples to references."""
        compositions = [None if crystal is None else reduced_composition(crystal.numbers) for crystal in samples]
        options = self.options
        return find_answers(self._compositions, compositions, self._asked, options.each, options.order, self._rounds)

    def _matches(
        self,
        real: Sequence[Crystal],
        samples: Sequence[Sequence[Crystal | None]],
        progress: Stages | None,
        name: str,
        most_pairs: int | None = None,
    ) -> Matches:
        """Return the distances of samples to references."""
        options = self.options
        return find_matches_of_references(
            real,
            samples,
            options.workers,
            stage(progress, name, len(real)),
            options.engine,
            options.most_pairs if most_pairs is None else most_pairs,
        )

    def _read_train(self, progress: Stages | None) -> Sequence[Crystal] | None:
        """Return the train crystals if they are needed and available."""
        if self._train is None or not (self.options.baseline or self.options.data_set == DATA_SET):
            return None
        bar = stage(progress, "reading the train split", 1)
        bar(0)
        train = self._train()
        bar(1)
        return train

    def _passes(self, crystal: Crystal) -> bool:
        """Return whether a composition passes as valid."""
        return composition_verdict(crystal.numbers, self.options.oxidation_states) in PASSED

    def _add_published(self, metrics: Metrics) -> None:
        """Add published values to the metrics of the same number of valid samples."""
        for model, values in PUBLISHED.get(self.options.data_set or "", {}).items():
            for k, pair in values.items():
                at = "" if k == 1 else f"_at_{k}"
                for name, value in zip(("match_rate_of_valid", "rmse_of_valid"), pair, strict=True):
                    if f"{name}{at}" in metrics:
                        metrics[f"{name}{at}"].setdefault("published", {})[model] = value

    def _counts(self, answers: Answers, samples: Sequence[Crystal | None]) -> Metrics:
        """Return the number of judged references, and of samples with the composition of their reference."""
        real, judged = len(self._real), len(answers.references)
        metrics: Metrics = {
            "judged_references": entry(
                judged, "crystals", f"crystals of {self.name} that rates are of", real, statement=answers.statement
            )
        }
        if judged < real:
            metrics["judged_references"]["statement"] += f"; {real - judged} have none and enter no rate"
        used = {
            place: self._compositions[row]
            for row, own in zip(answers.references.tolist(), answers.samples.tolist(), strict=True)
            for place in own
            if place >= 0
        }
        met = sum(
            (crystal := samples[place]) is not None and reduced_composition(crystal.numbers) == wanted
            for place, wanted in used.items()
        )
        metrics["composition_rate"] = rate(met, len(samples), "samples that have the composition that they answer")
        metrics["missing_samples"] = entry(
            int((answers.samples < 0).sum()),
            "samples",
            "places of a reference without a sample, which match nothing",
            answers.samples.size,
        )
        return metrics

    def _perovskites(
        self,
        places: np.ndarray,
        grid: Sequence[Sequence[Crystal | None]],
        matches: Matches,
        train: Sequence[Crystal] | None,
        progress: Stages | None,
    ) -> Metrics:
        """Return rates that forgive exchanged A and B, and rates of each kind of reference; for references (n,)."""
        real = [self._real[place] for place in places.tolist()]
        exchanged = [self._exchanged[place] for place in places.tolist()]
        others = self._matches(exchanged, grid, progress, "comparing with A and B exchanged", most_pairs=0)
        forgiving = dataclasses.replace(matches, own=np.fmin(matches.own, others.own))
        metrics = _renamed(csp_metrics(forgiving), "{}_metals_forgiven", "with A and B exchanged or not: {}")
        found = kinds(real, train or ())
        one = int((found == ONE_METAL).sum())
        metrics["coin_match_rate"] = entry(
            (one + (len(real) - one) / 2) / len(real),
            "1",
            "match rate that a fair coin for A and B reaches with one sample",
            len(real),
        )
        if train is None:
            metrics["other_polymorph_in_train_rate"] = entry(
                None, "1", "not known: the reference has no train split", 0
            )
            return metrics
        metrics["other_polymorph_in_train_rate"] = rate(
            int((found == IN_TRAIN).sum()),
            len(real),
            "references whose other polymorph, with A and B exchanged, is in train",
            statement=f"{one} references have one metal and no other polymorph; always answering with the polymorph "
            "that is not in train reaches a match rate of "
            f"{1 - float((found == NOT_IN_TRAIN).mean()) / 2:.4g} with one sample",
        )
        for kind in (IN_TRAIN, NOT_IN_TRAIN, ONE_METAL):
            inside = found == kind
            for name, which in (("{}_" + kind, matches), ("{}_metals_forgiven_" + kind, forgiving)):
                if inside.any():
                    text = f"of references of the kind {kind.replace('_', ' ')}: " + "{}"
                    metrics |= _renamed(csp_metrics(which.of(inside)), name, text)
        return metrics

    def _about(self, answers: Answers) -> dict[str, Any]:
        """Return the settings."""
        return {
            "protocol": {
                "name": "csp",
                "reference": {"name": self.name, "count": len(self._real)},
                "matcher": f"StructureMatcher, ltol {LTOL}, stol {STOL}, angle_tol {ANGLE_TOL}",
                "oxidation_states": self._states,
                "answers": answers.statement,
                "most_pairs": self.options.most_pairs,
            }
        }


def _renamed(metrics: Metrics, name: str, text: str) -> Metrics:
    """Return the match rates and RMSE of all samples under other names."""
    return {
        name.format(key): {**one, "description": text.format(one["description"])}
        for key, one in metrics.items()
        if key.startswith(("match_rate", "rmse")) and "of_valid" not in key
    }


def _part(inside: np.ndarray, matches: Matches, passing: np.ndarray, baseline: Matches | None) -> dict[str, Any]:
    """Return the values of some references, by a mask (n,); None without references."""
    some = inside.any()
    found: dict[str, Any] = {"reference_crystals": int(inside.sum())}
    for prefix, own in (("", matches), ("baseline_", baseline)):
        if own is not None:
            values = csp_metrics(own.of(inside) if some else own, passing[inside] if some else passing)
            values.pop("pairs_not_compared")
            found |= {f"{prefix}{name}": one["value"] if some else None for name, one in values.items()}
    return found


def _rows(rows: Sequence[Row], answers: Answers, matches: Matches) -> list[Row]:
    """Return rows with the `CSP_COLUMNS`."""
    own: list[Row] = [{**dict.fromkeys(CSP_COLUMNS), "matched": False} for _ in rows]
    for row, reference in enumerate(answers.references.tolist()):
        for column, place in enumerate(answers.samples[row].tolist()):
            if place < 0:
                continue
            found, distance = own[place], matches.own[row, column]
            found["reference"] = f"{found['reference']} {reference}" if found["reference"] else str(reference)
            if np.isfinite(distance):
                known = found["rms_distance"]
                found.update(matched=True, rms_distance=float(distance if known is None else min(known, distance)))
    return [{**row, **more} for row, more in zip(rows, own, strict=True)]
