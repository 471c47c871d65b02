"""Judging samples in order; rows are written as soon as they are ready.

An interrupted run resumes after the last row: unique samples are restored from the rows, and energies from their cache
(`crystens.energies.energies`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.hull import HullDistance, hull_distances
from crystens.energies.hull_entries import HullReference
from crystens.energies.known_crystals import KnownCrystals
from crystens.energies.potentials import Potential
from crystens.energies.relaxation import Energy, Relaxation
from crystens.errors import CrystensError
from crystens.matching.known_search import KnownSearch
from crystens.matching.unique_pool import Comparable, Found, Pool
from crystens.metrics.crystal_table import FAILED, OK, CrystalTable
from crystens.metrics.validity import is_structurally_valid
from crystens.sources.record import Entry, Reject
from crystens.sun.rows import COLUMNS, STATES, Row, is_credible, read_sun_rows, verdicts

# Samples in a chunk of energies: for each chunk, worker processes start and load the potential, some 6 seconds.
_CHUNK = 500
_RELAXED_CHUNK = 50

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Stability:
    """Settings of stability.

    Attributes:
        potential: potential for energies and relaxation.
        reference: hull for crystals as generated.
        options: options of the computation of energies; its relaxation is ignored.
        relaxation: options of relaxation; None judges crystals only as generated.
        relaxed_reference: hull for relaxed crystals, see `crystens.energies.references`.

    Raises:
        CrystensError: if `relaxation` is given without `relaxed_reference`.
    """

    potential: Potential
    reference: HullReference
    options: EnergyOptions
    relaxation: Relaxation | None = None
    relaxed_reference: HullReference | None = None

    def __post_init__(self) -> None:
        """Check that there is a hull for relaxed crystals."""
        if self.relaxation is not None and self.relaxed_reference is None:
            raise CrystensError("relaxed crystals need a hull of relaxed crystals; give a relaxed_reference")

    def hull(self, state: str) -> HullReference:
        """Return the hull for crystals in one of the `STATES`."""
        return self.relaxed_reference if state and self.relaxed_reference is not None else self.reference


@dataclass(frozen=True, eq=False)
class _Judged:
    """A crystal with its energy and its position relative to the hull; without a crystal there is a reason."""

    crystal: Crystal | None
    num_sites: int
    energy: Energy | None = None
    place: HullDistance | None = None
    reason: str | None = None


def judge(
    samples: Sequence[tuple[int, Entry | Reject]],
    known: KnownCrystals,
    table: CrystalTable,
    stability: Stability | None = None,
    progress: Progress | None = None,
    merged: Collection[int] = (),
    search: KnownSearch | None = None,
) -> list[Row]:
    """Return the rows of all samples, and append those that the table lacks.

    Args:
        samples: index and crystal of each sample, or the reason why it failed; the table holds the first ones.
        known: the crystals that a sample must differ from to be novel.
        table: table with the columns `COLUMNS`; its rows must come from the same samples and options.
        stability: settings of stability; None leaves stability out.
        progress: called with the number of finished samples.
        merged: indices of samples in which decoding merged sites; these are not structurally valid.
        search: search among the known crystals; None searches in this process.
    """
    search = search or KnownSearch(known.crystals)
    states = STATES[: 0 if stability is None else 1 if stability.relaxation is None else 2]
    pools = {state: Pool() for state in states or STATES[:1]}
    done = len(table)
    if done:
        _remember(samples[:done], read_sun_rows(table.path), pools, stability)
    if progress is not None:
        progress(done)
    size = _RELAXED_CHUNK if len(states) == 2 else _CHUNK
    for start in range(done, len(samples), size):
        table.append(_rows(samples[start : start + size], known, search, pools, stability, states, merged))
        if progress is not None:
            progress(min(start + size, len(samples)))
    return read_sun_rows(table.path)


def _remember(
    samples: Sequence[tuple[int, Entry | Reject]],
    rows: Sequence[Row],
    pools: dict[str, Pool],
    stability: Stability | None,
) -> None:
    """Add the samples with rows that say unique to the pools."""
    for state, pool in pools.items():
        unique = [
            (index, item.crystal)
            for (index, item), row in zip(samples, rows, strict=True)
            if isinstance(item, Entry) and row[f"{state}unique"]
        ]
        judged = _judged([crystal for _, crystal in unique], stability if state else None, state)
        for (index, _), one in zip(unique, judged, strict=True):
            if one.crystal is not None:
                pool.add(index, Comparable(one.crystal))


def _rows(
    samples: Sequence[tuple[int, Entry | Reject]],
    known: KnownCrystals,
    search: KnownSearch,
    pools: dict[str, Pool],
    stability: Stability | None,
    states: Sequence[str],
    merged: Collection[int],
) -> list[Row]:
    """Return the rows of the next samples."""
    crystals = [item.crystal for _, item in samples if isinstance(item, Entry)]
    judged = {state: _searched(_judged(crystals, stability, state), search) for state in pools}
    rows = []
    for index, item in samples:
        row: Row = dict.fromkeys(COLUMNS)
        row |= {"index": index, "file": _one_line(item.file), "entry": _one_line(item.entry)}
        if isinstance(item, Reject):
            rows.append(row | {"status": FAILED, "reason": _one_line(item.reason)})
            continue
        row |= {"status": OK, "formula": item.crystal.formula, "num_sites": len(item.crystal)}
        row["structurally_valid"] = index not in merged and is_structurally_valid(item.crystal)
        for state, pool in pools.items():
            one, crystal, trained = next(judged[state])
            columns = _sameness(index, one, crystal, trained, pool, known) | _energetics(one)
            row |= {f"{state}{name}": value for name, value in columns.items()}
            if state and one.energy is not None and (relaxed := one.energy.relaxed) is not None:
                row |= {"relaxation_steps": relaxed.steps, "converged": relaxed.converged}
                row |= {"displacement": relaxed.displacement, "volume_change": relaxed.volume_change}
        rows.append(row | verdicts(row, states))
    return rows


def _judged(crystals: Sequence[Crystal], stability: Stability | None, state: str) -> list[_Judged]:
    """Return crystals, as generated or relaxed, with their energies."""
    if stability is None:
        return [_Judged(crystal, len(crystal)) for crystal in crystals]
    options = replace(stability.options, relaxation=stability.relaxation if state else None)
    computed = energies(crystals, stability.potential, options)
    places = hull_distances(crystals, computed, stability.potential, stability.hull(state))
    made = []
    for crystal, energy, place in zip(crystals, computed, places, strict=True):
        if not state:
            made.append(_Judged(crystal, len(crystal), energy, place))
        elif energy.relaxed is None:
            made.append(_Judged(None, len(crystal), energy, place, f"not relaxed: {energy.reason}"))
        elif not energy.relaxed.converged:
            made.append(_Judged(None, len(crystal), energy, place, f"not at rest: after {energy.relaxed.steps} steps"))
        else:
            made.append(_Judged(energy.relaxed.crystal, len(crystal), energy, place))
    return made


def _searched(
    judged: Sequence[_Judged], search: KnownSearch
) -> Iterator[tuple[_Judged, Comparable | None, Found | None]]:
    """Yield each crystal, prepared for comparison, with its search result among known crystals; None without one."""
    ready = [None if one.crystal is None else Comparable(one.crystal) for one in judged]
    found = iter(search.find([crystal for crystal in ready if crystal is not None]))
    for one, crystal in zip(judged, ready, strict=True):
        yield one, crystal, None if crystal is None else next(found)


def _sameness(
    index: int, judged: _Judged, crystal: Comparable | None, trained: Found | None, pool: Pool, known: KnownCrystals
) -> Row:
    """Return the columns of uniqueness and novelty of a crystal, and add it to the pool if it is unique."""
    if crystal is None or trained is None:
        return {"sameness_reason": _one_line(judged.reason or "")}
    earlier = pool.find(crystal, lowest=True)
    unique, novel = _is_new(earlier), _is_new(trained)
    if unique:
        pool.add(index, crystal)
    return {
        "group": index if unique else earlier.place,
        "unique": unique,
        "novel": novel,
        "same_as": None if trained.place is None else _one_line(known.names[trained.place]),
        "sameness_reason": _one_line(earlier.reason or trained.reason or ""),
    }


def _is_new(found: Found) -> bool | None:
    """Return whether a search found no match; None if unknown."""
    return None if found.reason is not None else found.place is None


def _energetics(judged: _Judged) -> Row:
    """Return the columns of the energy of a crystal."""
    if judged.energy is None or judged.place is None:
        return {}
    total, place = judged.energy.total, judged.place
    unsettled = judged.reason if total is not None else None
    if not is_credible(place.formation_energy):
        unsettled = f"energy not credible: a formation energy of {place.formation_energy:.1f} eV/atom"
    return {
        "energy": None if total is None else total / judged.num_sites,
        "formation_energy": place.formation_energy,
        "above_hull": place.above_hull,
        "hull_entries": place.num_entries,
        "hull_compounds": place.num_compounds,
        "stability_reason": _one_line(place.reason or unsettled or ""),
    }


def _one_line(text: str) -> str | None:
    """Return a text without line breaks; None for an empty one."""
    return " ".join(text.split()) or None
