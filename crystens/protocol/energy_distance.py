"""Energy per atom of samples, compared with real crystals, by a universal potential.

Energies are of unrelaxed crystals. As in the original, the valid samples that the protocol draws are compared with all
real crystals. Only these energies are computed, and they are cached (`crystens.energies.energies`). A crystal without
an energy (out of the potential's domain, failed, too slow, not finite) is left out of the distance. The metrics state
the number of such crystals, with reasons.

Source: as `crystens.protocol.cdvae_protocol`.
Differs from the original: its network learned one column of each data set, for Perov-5 the heat of formation. A
potential gives the total energy, which varies much more between compositions. Compare distances by the same potential
only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.potentials import Potential
from crystens.errors import CrystensError
from crystens.metrics.crystal_table import ENERGY_COLUMNS, Row
from crystens.metrics.entries import Metrics, entry
from crystens.protocol.by_num_sites import wasserstein
from crystens.sources.reasons import category_counts

Progress = Callable[[int], None]


class EnergyDistance:
    """The Wasserstein distance of energy per atom to real crystals.

    Args:
        real: the real crystals, usually the test split.
        name: name of the real crystals, for messages.
        potential: the potential.
        options: options of the computation.
        progress: called with the number of finished real crystals.

    Raises:
        CrystensError: if the options ask for a relaxation, or the potential cannot be loaded.
    """

    def __init__(
        self,
        real: Sequence[Crystal],
        name: str,
        potential: Potential,
        options: EnergyOptions | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self.potential = potential
        self.options = options or EnergyOptions()
        if self.options.relaxation is not None:
            raise CrystensError(f"energies here are of unrelaxed crystals; leave out {self.options.relaxation}")
        rows = self._columns(real, progress)
        self._sizes = np.array([len(crystal) for crystal in real])
        self._real = np.array([row["energy_per_atom"] for row in rows], dtype=np.float64)  # NaN where there is none
        self._reasons = [row["energy_reason"] for row in rows]

    def measured(
        self,
        rows: Sequence[Row],
        drawn: Sequence[int],
        crystals: Mapping[int, Crystal],
        progress: Progress | None = None,
    ) -> list[Row]:
        """Return the rows of all samples with the `ENERGY_COLUMNS`, which are empty for samples that are not drawn.

        Args:
            rows: rows of all samples.
            drawn: indices of the drawn rows.
            crystals: crystals by the index of their row.
            progress: called with the number of finished drawn samples.
        """
        own = self._columns([crystals[rows[place]["index"]] for place in drawn], progress)
        columns = dict(zip(drawn, own, strict=True))
        nothing = dict.fromkeys(ENERGY_COLUMNS)
        return [{**row, **columns.get(place, nothing)} for place, row in enumerate(rows)]

    def _columns(self, crystals: Sequence[Crystal], progress: Progress | None) -> list[Row]:
        """Return the `ENERGY_COLUMNS` of crystals."""
        return [
            {
                "energy_per_atom": None if energy.total is None else energy.total / len(crystal),
                "energy_reason": energy.reason,
            }
            for crystal, energy in zip(
                crystals, energies(crystals, self.potential, self.options, progress), strict=True
            )
        ]

    def metrics(self, drawn: Sequence[Row], what: str, told: Mapping[str, Any]) -> Metrics:
        """Return the distance, and the number of crystals that it leaves out.

        Args:
            drawn: rows of the drawn samples, with the `ENERGY_COLUMNS`.
            what: the drawn samples in words, for the description.
            told: facts of the draw, kept in the distance's entry; its `statement`, if any, is extended.
        """
        model = self.potential.identity
        failed = category_counts(row["energy_reason"] for row in drawn)
        real_failed = category_counts(self._reasons)
        without, real_without = sum(failed.values()), sum(real_failed.values())
        statements = [told["statement"]] if "statement" in told else []
        if without or real_without:
            statements.append(
                f"{without} of {len(drawn)} drawn samples and {real_without} of {len(self._real)} crystals of "
                f"{self.name} have no energy and are left out"
            )
        distance = entry(
            wasserstein(drawn, "energy_per_atom", self._known()),
            "eV/atom",
            f"Wasserstein distance between the energies per atom, by {model}, not relaxed, of {what} and those of "
            f"{self.name}; of crystals that have one",
            len(drawn) - without,
            reference_count=len(self._real) - real_without,
            model=model,
            **{**told, **({"statement": "; ".join(statements)} if statements else {})},
        )
        left_out = f"without an energy by {model}, which the distance leaves out, by reason"
        return {
            "wasserstein_energy": distance,
            "energy_failures": entry(
                without, "samples", f"valid samples that are drawn, {left_out}", len(drawn), reasons=failed
            ),
            "reference_energy_failures": entry(
                real_without,
                "crystals",
                f"crystals of {self.name} {left_out}",
                len(self._real),
                reasons=real_failed,
            ),
        }

    def by_num_sites(self, table: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the protocol's table by number of sites with the distance for each size, of drawn samples only.

        `energies` and `reference_energies` are the numbers of samples and real crystals of that size with an energy.
        """
        found = []
        for line in table:
            same = self._sizes == line["num_sites"]
            own = [row for row in rows if row["num_sites"] == line["num_sites"] and row["energy_per_atom"] is not None]
            known = self._known(same)
            distance = wasserstein(own, "energy_per_atom", known)
            counts = {"energies": len(own), "reference_energies": len(known)}
            found.append({**line, **counts, "wasserstein_energy": distance})
        return found

    def about(self) -> dict[str, Any]:
        """Return the settings."""
        return {
            "model": self.potential.identity,
            "crystals": "not relaxed",
            "time_limit": f"{self.options.limits[0]:g} s",
            "reference_without_energy": int(np.isnan(self._real).sum()),
        }

    def _known(self, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the known energies of chosen real crystals, eV/atom."""
        values = self._real[chosen]
        return values[np.isfinite(values)]
