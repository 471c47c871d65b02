"""The CDVAE protocol for judging generators of crystals, which DiffCSP and others follow.

All samples are judged; a failed sample is not valid and not covered.

- Validity: `crystens.metrics.validity` of the structure, `crystens.protocol.composition_validity` of the composition;
  a sample is valid if it passes both and has a fingerprint.
- Coverage (COV) of the real crystals by all samples that have a fingerprint, valid or not:
`crystens.protocol.coverage`.
- Wasserstein distances of density and number of elements between 1,000 valid samples, drawn by a seed, and the real
  crystals. If fewer samples are valid, all of them are taken, and the metric says so; the original stops with an error.
- Optional, with a potential: the Wasserstein distance of energy per atom (`crystens.protocol.energy_distance`).

Additions to the original: strict coverage, both distances over all samples instead of a draw, the validity of the real
crystals, and each metric by the number of sites.

Source: Xie et al., "Crystal Diffusion Variational Autoencoder for Periodic Material Generation", ICLR 2022, Sec. 5.2,
and the scripts of its public code, read for the rules that the paper leaves open.
Differs from the original: the draw has a seed; real crystals without a fingerprint count as not covered, where the
original stops with an error; energies are those of a universal potential instead of a network trained for the data set;
diversities are left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.metrics.crystal_table import ENERGY_COLUMNS, OK, PROTOCOL_COLUMNS, Row
from crystens.metrics.entries import Metrics, entry, rate
from crystens.metrics.validity import MIN_DISTANCE, MIN_VOLUME, is_structurally_valid
from crystens.protocol.by_num_sites import by_num_sites, mean, wasserstein
from crystens.protocol.composition_validity import OXIDATION_STATES, PASSED, composition_verdict, states_name
from crystens.protocol.coverage import Nearest, nearest
from crystens.protocol.energy_distance import EnergyDistance
from crystens.protocol.fingerprinting import FingerprintOptions, fingerprints
from crystens.protocol.fingerprints import COMPOSITION_SIZE, STRUCTURE_SIZE, Fingerprint, made_by
from crystens.protocol.judgement import Judgement, Progress, Stages, stage
from crystens.protocol.magpie_scaling import SCALER, scaled

log = logging.getLogger(__name__)

CUTOFFS = {"mp_20": (0.4, 10.0), "perov_5": (0.2, 4.0), "carbon_24": (0.2, 4.0)}  # structure, composition
VALID_SAMPLES = 1000


@dataclass(frozen=True)
class ProtocolOptions:
    """Options of the protocol.

    Attributes:
        cutoffs: largest distance of a covered structure and of a covered composition.
        oxidation_states: smact's list of oxidation states for compositions, one of `OXIDATION_STATES`.
        valid_samples: number of valid samples drawn for the Wasserstein distances.
        seed: seed of that draw.
        fingerprints: how fingerprints are computed.

    Raises:
        CrystensError: if an option is out of range.
    """

    cutoffs: tuple[float, float]
    oxidation_states: str = "smact14"
    valid_samples: int = VALID_SAMPLES
    seed: int = 0
    fingerprints: FingerprintOptions = field(default_factory=FingerprintOptions)

    def __post_init__(self) -> None:
        """Check the options."""
        if self.oxidation_states not in OXIDATION_STATES:
            raise CrystensError(
                f"oxidation states {self.oxidation_states!r} are not known; use one of {', '.join(OXIDATION_STATES)}"
            )
        if not all(0 < cutoff < np.inf for cutoff in self.cutoffs):
            raise CrystensError(f"cut-offs must be above 0 and finite, got {self.cutoffs}")
        if self.seed < 0:
            raise CrystensError(f"seed must be at least 0, got {self.seed}")
        if self.valid_samples < 1:
            raise CrystensError(f"valid_samples must be at least 1, got {self.valid_samples}")


class CdvaeProtocol:
    """Judge by the CDVAE protocol, against real crystals.

    Args:
        real: the real crystals, usually the test split.
        name: name of the real crystals, for messages.
        options: options of the protocol.
        progress: called with the number of real crystals that are done.
        energies: compares energies with the same real crystals; None leaves energies out.
        drawn_of: number of crystals that the real crystals were drawn from; None if they are all.

    Attributes:
        columns: columns that it adds to the rows of samples.

    Raises:
        CrystensError: if there is no real crystal, or matminer or smact is not installed.
    """

    def __init__(
        self,
        real: Sequence[Crystal],
        name: str,
        options: ProtocolOptions,
        progress: Progress | None = None,
        energies: EnergyDistance | None = None,
        drawn_of: int | None = None,
    ) -> None:
        if not real:
            raise CrystensError(f"{name} holds no crystal to compare with")
        self.name = name
        self.options = options
        self.columns = PROTOCOL_COLUMNS + (() if energies is None else ENERGY_COLUMNS)
        self._energies = energies
        self._drawn_of = drawn_of
        self._states = states_name(options.oxidation_states)
        found = fingerprints(real, options.fingerprints, progress)
        self._prints = _Prints(found)
        self._without_print = Counter(one.reason for one in found if one.reason is not None)
        if self._without_print:
            log.warning(
                "%d of %d crystals of %s have no fingerprint and count as not covered: %s",
                self._without_print.total(),
                len(real),
                name,
                ", ".join(f"{count} {reason}" for reason, count in self._without_print.most_common(3)),
            )
        self._structural = np.array([is_structurally_valid(crystal) for crystal in real])
        self._compositional = np.array([self._verdict(crystal) in PASSED for crystal in real])
        self._sizes = np.array([len(crystal) for crystal in real])
        self._densities = np.array([float(crystal.to_structure().density) for crystal in real])
        self._elements = np.array([_num_elements(crystal) for crystal in real])

    def judge(self, rows: Sequence[Row], crystals: Mapping[int, Crystal], progress: Stages | None = None) -> Judgement:
        """Return the results of the protocol for samples.

        Args:
            rows: rows of all samples, failed samples included, with the columns of `crystens.metrics.crystal_table`.
            crystals: the decoded crystals, by the index of their row.
            progress: called with the name of the stage ("fingerprints", "coverage", "compositions", "energies"), the
                number of finished samples, and the number of all samples.

        Raises:
            CrystensError: if there is no row, or energies are asked for and the potential cannot be loaded.
        """
        if not rows:
            raise CrystensError("there is no sample to judge")
        places = [place for place, row in enumerate(rows) if row["status"] == OK]
        given = [crystals[rows[place]["index"]] for place in places]
        found: list[Fingerprint | None] = [None] * len(rows)
        bar = stage(progress, "fingerprints", len(given))
        for place, taken in zip(places, fingerprints(given, self.options.fingerprints, bar), strict=True):
            found[place] = taken
        bar = stage(progress, "coverage", len(rows))
        bar(0)
        to_real, to_samples = nearest(_Prints(found).arrays, self._prints.arrays, self.options.cutoffs)
        bar(len(rows))
        bar = stage(progress, "compositions", len(rows))
        judged = []
        for place, row in enumerate(rows):
            bar(place)
            judged.append(self._judged(row, crystals.get(row["index"]), found[place], to_real, place))
        bar(len(rows))
        drawn = self._drawn(judged)
        if self._energies is not None:
            judged = self._energies.measured(judged, drawn, crystals, stage(progress, "energies", len(drawn)))
        by_size = by_num_sites(
            judged, self._sizes, {"density": self._densities, "num_elements": self._elements}, to_samples
        )
        if self._energies is not None:
            by_size = self._energies.by_num_sites(by_size, judged)
        metrics = self._metrics(judged, to_real, to_samples) | self._distances(judged, drawn)
        return Judgement(judged, metrics, by_size, self._about())

    def _judged(
        self, row: Row, crystal: Crystal | None, found: Fingerprint | None, to_real: Nearest, place: int
    ) -> Row:
        """Return the row of a sample with the columns of the protocol."""
        own: Row = dict.fromkeys(PROTOCOL_COLUMNS)
        own.update(valid=False, covered=bool(to_real.covered[place]), covered_strict=bool(to_real.both[place]))
        if crystal is not None and found is not None:
            verdict = self._verdict(crystal)
            own.update(
                num_elements=_num_elements(crystal),
                composition_verdict=verdict,
                composition_valid=verdict in PASSED,
                fingerprint_reason=found.reason,
                valid=bool(row["structurally_valid"]) and verdict in PASSED and found.reason is None,
            )
            if found.reason is None and self._prints.count:
                own.update(structure_distance=float(to_real.structure[place]))
                own.update(composition_distance=float(to_real.composition[place]))
        return {**row, **own}

    def _metrics(self, rows: list[Row], to_real: Nearest, to_samples: Nearest) -> Metrics:
        """Return the metrics of all samples, without the Wasserstein distances."""
        total, real = len(rows), len(self._sizes)
        metrics: Metrics = {}
        tested = f"by smact with the Pauling test, {self._states}; single elements and alloys pass"
        metrics["compositional_validity"] = rate(
            sum(bool(row["composition_valid"]) for row in rows),
            total,
            f"share of all samples whose composition is charge neutral {tested}; failed samples are not valid",
            held_out=float(self._compositional.mean()),
        )
        metrics["validity"] = rate(
            sum(row["valid"] for row in rows),
            total,
            "share of all samples that are structurally and compositionally valid and have a fingerprint",
            held_out=float((self._structural & self._compositional & self._prints.has).mean()),
        )
        metrics["reference_structural_validity"] = rate(
            int(self._structural.sum()), real, f"share of {self.name} that is structurally valid"
        )
        metrics["reference_compositional_validity"] = rate(
            int(self._compositional.sum()), real, f"share of {self.name} whose composition is charge neutral {tested}"
        )
        metrics["fingerprint_failures"] = self._failures(rows)
        metrics["reference_fingerprint_failures"] = entry(
            self._without_print.total(),
            "crystals",
            f"crystals of {self.name} without a fingerprint, which are not covered, by reason",
            real,
            reasons=dict(self._without_print.most_common(20)),
        )
        return metrics | self._coverage(total, to_real, to_samples)

    def _coverage(self, total: int, to_real: Nearest, to_samples: Nearest) -> Metrics:
        """Return recall and precision of coverage, as in the original and strict, and the mean distances."""
        structure, composition = self.options.cutoffs
        within = f"within {structure:g} of its structure and a composition within {composition:g} of its composition"
        recall = f"share of {self.name} with a sample's structure {within}"
        precision = (
            f"share of all samples with a structure of {self.name} {within}; those without a fingerprint are not"
        )
        real = len(self._sizes)
        loose, strict = ", not always of the same crystal (as the original counts)", ", both of one crystal"
        metrics = {
            "cov_recall": rate(int(to_samples.covered.sum()), real, recall + loose),
            "cov_precision": rate(int(to_real.covered.sum()), total, precision + loose),
            "cov_recall_strict": rate(int(to_samples.both.sum()), real, recall + strict),
            "cov_precision_strict": rate(int(to_real.both.sum()), total, precision + strict),
        }
        if self._drawn_of is not None:
            for name in ("cov_precision", "cov_precision_strict"):
                metrics[name]["statement"] = (
                    f"against {real} of {self._drawn_of} real crystals: lower than against all of them"
                )
        for letter, kind in (("s", "structure"), ("c", "composition")):
            for side, near, of in (
                ("recall", to_samples, f"crystals of {self.name} to samples"),
                ("precision", to_real, f"samples to crystals of {self.name}"),
            ):
                values = getattr(near, kind)
                values = values[np.isfinite(values)]
                text = f"distance from {of}, to the nearest {kind} each, mean over those with a fingerprint"
                metrics[f"am{letter}d_{side}"] = entry(mean(values), "1", text, len(values))
        return metrics

    def _drawn(self, rows: Sequence[Row]) -> list[int]:
        """Return the indices of the drawn valid samples, in order."""
        valid = [place for place, row in enumerate(rows) if row["valid"]]
        chosen = np.random.default_rng(self.options.seed).permutation(len(valid))[: self.options.valid_samples]
        return [valid[place] for place in sorted(chosen)]

    def _distances(self, rows: list[Row], places: Sequence[int]) -> Metrics:
        """Return the Wasserstein distances, of drawn valid samples and of all samples."""
        asked, valid = self.options.valid_samples, sum(row["valid"] for row in rows)
        drawn = [rows[place] for place in places]
        decoded = [row for row in rows if row["status"] == OK]
        more: dict[str, Any] = {"valid_samples": valid, "asked_samples": asked}
        if valid < asked:
            more["statement"] = f"only {valid} samples are valid, of {asked} in the protocol: all of them are taken"
        which = f"{asked} valid samples, drawn with seed {self.options.seed},"
        if valid < asked:
            which = f"all {valid} valid samples (the protocol asks for {asked})"
        metrics: Metrics = {}
        for column, unit, text, real in (
            ("density", "g/cm^3", "densities", self._densities),
            ("num_elements", "elements", "numbers of elements", self._elements),
        ):
            what = f"Wasserstein distance between the {text} of {{}} and those of {self.name}"
            metrics[f"wasserstein_{column}"] = entry(
                wasserstein(drawn, column, real),
                unit,
                what.format(which),
                len(drawn),
                reference_count=len(real),
                **more,
            )
            metrics[f"wasserstein_{column}_all"] = entry(
                wasserstein(decoded, column, real),
                unit,
                what.format("all samples that are crystals, valid or not, without a draw,"),
                len(decoded),
                reference_count=len(real),
            )
        if self._energies is not None:
            metrics |= self._energies.metrics(drawn, which, more)
        return metrics

    def _failures(self, rows: list[Row]) -> dict[str, Any]:
        """Return the number of crystals without a fingerprint, and the reasons."""
        reasons = Counter(row["fingerprint_reason"] for row in rows if row["fingerprint_reason"])
        crystals = sum(row["status"] == OK for row in rows)
        text = "crystals without a fingerprint, which are not valid and not covered, by reason"
        return entry(reasons.total(), "samples", text, crystals, reasons=dict(reasons.most_common(20)))

    def _about(self) -> dict[str, Any]:
        """Return the settings."""
        energies = {} if self._energies is None else {"energies": self._energies.about()}
        return {
            "protocol": {
                "name": "cdvae",
                "reference": {"name": self.name, "count": len(self._sizes)},
                "cutoffs": {"structure": self.options.cutoffs[0], "composition": self.options.cutoffs[1]},
                "oxidation_states": self._states,
                "min_distance": f"{MIN_DISTANCE} angstrom",
                "min_volume": f"{MIN_VOLUME} angstrom^3",
                "structure_fingerprint": "CrystalNN, preset ops, mean over sites, not scaled",
                "composition_fingerprint": f"Magpie, unknown values not filled in, scaled with {SCALER}",
                "fingerprints_by": made_by(),
                "time_limit": f"{self.options.fingerprints.limits[0]:g} s",
                "valid_samples": self.options.valid_samples,
                **energies,
            }
        }

    def _verdict(self, crystal: Crystal) -> str:
        """Return the verdict on a composition."""
        return composition_verdict(crystal.numbers, self.options.oxidation_states)


class _Prints:
    """Fingerprints as arrays: structures (n, 61) and scaled compositions (n, 132), NaN where there is none."""

    def __init__(self, found: Sequence[Fingerprint | None]) -> None:
        structures = np.full((len(found), STRUCTURE_SIZE), np.nan)
        compositions = np.full((len(found), COMPOSITION_SIZE), np.nan)
        has = np.zeros(len(found), dtype=bool)
        for place, one in enumerate(found):
            if one is not None and one.structure is not None and one.composition is not None:
                structures[place], compositions[place], has[place] = one.structure, one.composition, True
        compositions[has] = scaled(compositions[has])
        self.arrays = structures, compositions
        self.has = has
        self.count = int(has.sum())


def _num_elements(crystal: Crystal) -> int:
    """Return the number of different elements."""
    return len(set(crystal.numbers.tolist()))
