"""The folder of candidates: writing tables, CIFs, changes and inputs, and reading the tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crystens.candidates.changes import largest
from crystens.candidates.selection import Candidate, Selection, exclusion_counts
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.dft.engines import DftEngine, engine_of, run_all
from crystens.dft.runs import CHECK, FINISHED, SYMPREC, DftRun, flags
from crystens.errors import CrystensError
from crystens.processes.atomic_file import write_csv, write_whole
from crystens.symmetry.space_groups import SymmetryError, group_within, symmetrised

_EXACT = 0.01  # angstrom: tolerance at which a relaxed crystal is symmetrised for DFT

Row = dict[str, Any]


def write_selection(selection: Selection, out: Path, starts: str, about: Mapping[str, Any], engine: DftEngine) -> None:
    """Write the tables, and a folder for each candidate.

    Args:
        selection: candidates and excluded samples.
        out: the folder; created if it does not exist.
        starts: start of DFT, "relaxed" or "cleaned".
        about: further content of summary.json: source, options.
        engine: the DFT code.

    Raises:
        CrystensError: if the folder holds candidates of another selection, or cannot be written.
    """
    folder = out / "candidates"
    names = {candidate.name for candidate in selection.candidates}
    foreign = sorted(path.name for path in folder.glob("*") if path.name not in names)
    if foreign:
        raise CrystensError(
            f"{folder} holds {foreign[0]} of another selection; give another --out, or move the folder away"
        )
    try:
        missing = [_write_candidate(item, out, starts, engine) for item in selection.candidates]
        _write_table(out / "candidates.csv", [_row(candidate) for candidate in selection.candidates])
        runs = [row for candidate in selection.candidates for row in _relaxation_rows(candidate)]
        _write_table(out / "relaxations.csv", runs)
        rows = [{"sample": item.sample.name, "reason": item.reason} for item in selection.excluded]
        _write_table(out / "excluded.csv", rows, ["sample", "reason"])
        summary = {
            **about,
            **_summary(selection),
            "engine": engine.program,
            "not_ready_to_run": sum(item is not None for item in missing),
        }
        write_whole(out / "run.sh", run_all(engine, len(selection.candidates)))
        (out / "run.sh").chmod(0o755)
        write_whole(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    except OSError as error:
        raise CrystensError(f"cannot write to {out}: {error.strerror}; choose another folder") from error


def parse_runs(out: Path, engine: DftEngine | None = None) -> list[Row]:
    """Read the runs of all candidates, write dft.csv, add the last relaxation to candidates.csv, and return the rows.

    A candidate without a run has a row too.

    Args:
        out: the folder that select wrote.
        engine: the DFT code; None for the only one with inputs in the folder.

    Raises:
        CrystensError: if there are no candidates, or inputs of several engines and none is given.
    """
    candidates = read_candidates(out)
    engine = engine or engine_of(out)
    rows: list[Row] = []
    for candidate in candidates:
        runs = engine.read_runs(engine.inputs(out, candidate["name"]))
        runs = runs or [DftRun("", "", "not begun", "no run_1 in its folder; start run.sh there")]
        compared = [_compared(run, candidate) for run in runs]
        for row, against in zip(compared, flags(runs), strict=True):
            row["flags"] = "; ".join(against)
        rows += [{"rank": candidate["rank"], "name": candidate["name"], **row} for row in compared]
        last = [row for row in compared if row["run"] != CHECK][-1]
        # The message of a check refers to the relaxation before it.
        last = last | {"flags": "; ".join(row["flags"] for row in compared if row["flags"])}
        candidate |= {f"dft_{name}": value for name, value in last.items() if name not in ("formula", "num_sites")}
    try:
        _write_table(out / "dft.csv", rows)
        _write_table(out / "candidates.csv", candidates)
    except OSError as error:
        raise CrystensError(f"cannot write to {out}: {error.strerror}; make it writable") from error
    return rows


def read_candidates(out: Path) -> list[dict[str, Any]]:
    """Return the rows of candidates.csv.

    Raises:
        CrystensError: if there is none.
    """
    table = out / "candidates.csv"
    if not table.is_file():
        raise CrystensError(
            f"no candidates.csv in {out}; give the folder that `python -m crystens.candidates select` wrote"
        )
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _compared(run: DftRun, candidate: Mapping[str, str]) -> Row:
    """Return the values of a run, and their differences from the potential's relaxed crystal."""
    row = run.to_dict() | {"minus_potential_energy": None, "minus_potential_volume": None}
    if run.status != FINISHED or run.energy_per_atom is None or run.volume is None or run.num_sites is None:
        return row
    if candidate["energy_relaxed"]:
        row["minus_potential_energy"] = run.energy_per_atom - float(candidate["energy_relaxed"])
    if candidate["volume_relaxed"]:
        row["minus_potential_volume"] = run.volume / run.num_sites - float(candidate["volume_relaxed"])
    if run.formula != candidate["formula"]:
        row["reason"] = f"of another composition: {run.formula}, the candidate is {candidate['formula']}"
    return row


def _write_candidate(candidate: Candidate, out: Path, starts: str, engine: DftEngine) -> str | None:
    """Write the folder of one candidate; return what its inputs lack, or None."""
    folder = out / "candidates" / candidate.name
    folder.mkdir(parents=True, exist_ok=True)
    cleaned = candidate.cleaned
    write_whole(folder / "generated.cif", write_cif(candidate.ranked.crystal))
    write_whole(folder / "cleaned.cif", write_cif(cleaned.symmetry or cleaned.crystal))
    relaxed = candidate.relaxations.crystal
    if relaxed is not None:
        write_whole(folder / "relaxed.cif", write_cif(_exact(relaxed)))
    told = {
        "sample": candidate.ranked.sample.name,
        "formula_generated": candidate.ranked.crystal.formula,
        "formula": cleaned.crystal.formula,
        "charge": cleaned.charge,
        "changes": [change.to_dict() for change in cleaned.changes],
    }
    write_whole(folder / "changes.json", json.dumps(told, indent=1) + "\n")
    start, what = cleaned.crystal, "the cleaned crystal, as cleaned.cif"
    if starts == "relaxed" and relaxed is not None:
        start, what = _exact(relaxed), "the crystal relaxed by the potential, as relaxed.cif"
    title = f"{candidate.name}: {candidate.ranked.sample.name}"
    return engine.write_inputs(start, engine.inputs(out, candidate.name), title, what)


def _exact(crystal: Crystal) -> Crystal:
    """Return a relaxed crystal, symmetrised at 0.01 angstrom; unchanged if no space group is found.

    A potential in single precision displaces equivalent sites by some 1e-5 angstrom, which a DFT code treats as a loss
    of symmetry.
    """
    try:
        return symmetrised(crystal, _EXACT).crystal
    except SymmetryError:
        return crystal


def _row(candidate: Candidate) -> Row:
    """Return the row of a candidate."""
    ranked, cleaned, relaxed = candidate.ranked, candidate.cleaned, candidate.relaxations
    after = relaxed.crystal
    total = ranked.energy.total
    return {
        "rank": candidate.rank,
        "name": candidate.name,
        "sample": ranked.sample.name,
        "formula_generated": ranked.crystal.formula,
        "formula": cleaned.crystal.formula,
        "num_sites": len(cleaned.crystal),
        "charge": cleaned.charge,
        "space_group_stated": ranked.sample.generated_group,
        "space_group_generated": cleaned.group_before,
        "space_group_cleaned": cleaned.crystal.space_group,
        "tolerance": cleaned.tolerance,
        "num_changes": len(cleaned.changes),
        "elements_changed": sum(change.what == "element" for change in cleaned.changes),
        "largest_shift": largest(cleaned.changes, "coordinates"),
        "energy_generated": None if total is None else total / len(ranked.crystal),
        "formation_energy_generated": ranked.place.formation_energy,
        "above_hull_generated": ranked.place.above_hull,
        "energy_cleaned": relaxed.energy_before,
        "energy_relaxed": relaxed.energy_after,
        "formation_energy_relaxed": candidate.place.formation_energy,
        "above_hull_relaxed": candidate.place.above_hull,
        "reference_compounds": candidate.place.num_compounds,
        "converged": relaxed.converged,
        "displacement": relaxed.displacement,
        "volume_change": relaxed.volume_change,
        "volume_relaxed": None if after is None else after.lattice.volume / len(after),
        "space_group_relaxed": None if after is None else group_within(after, SYMPREC),
        "known": candidate.known,
        "reason": relaxed.reason or candidate.place.reason,
    }


def _relaxation_rows(candidate: Candidate) -> list[Row]:
    """Return one row for each relaxation; energies in eV/atom, pressures in GPa, relative volumes."""
    rows = []
    for run, energy in enumerate(candidate.relaxations.runs, 1):
        done, sites = energy.relaxed, len(candidate.cleaned.crystal)
        row: Row = {"rank": candidate.rank, "name": candidate.name, "run": run, "reason": energy.reason}
        row["energy_before"] = None if done is None else done.energy_before / sites
        row["energy_after"] = None if energy.total is None else energy.total / sites
        for name in ("pressure_before", "pressure_after", "force", "displacement", "mean_displacement"):
            row[name] = None if done is None else getattr(done, name)
        row["volume_change"] = None if done is None else done.volume_change
        row["steps"] = None if done is None else done.steps
        row["converged"] = None if done is None else done.converged
        row["space_group"] = None if done is None else group_within(done.crystal, SYMPREC)
        row["seconds"] = energy.seconds
        rows.append(row)
    return rows


def _summary(selection: Selection) -> Row:
    """Return the numbers of candidates, exclusions and changes."""
    candidates = selection.candidates
    hulls = {"": selection.reference, "relaxed_": selection.relaxed_reference}
    charges = [candidate.cleaned.charge for candidate in candidates]
    return {
        **{f"{state}reference": None if hull is None else hull.name for state, hull in hulls.items()},
        **{f"{state}reference_entries": None if hull is None else len(hull.entries) for state, hull in hulls.items()},
        "reference_note": "" if selection.relaxed_reference is None else selection.relaxed_reference.note,
        "samples": len(candidates) + len(selection.excluded),
        "candidates": len(candidates),
        "excluded": exclusion_counts(selection.excluded),
        "charge": {charge: charges.count(charge) for charge in sorted(set(charges))},
        "unchanged": sum(not candidate.cleaned.changes for candidate in candidates),
        "changed": {
            what: sum(any(change.what == what for change in item.cleaned.changes) for item in candidates)
            for what in ("merged sites", "element", "space group", "cell", "origin", "coordinates")
        },
        "relaxed": sum(candidate.relaxations.crystal is not None for candidate in candidates),
        "converged": sum(candidate.relaxations.converged for candidate in candidates),
        "known": sum(candidate.known is not None for candidate in candidates),
    }


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows atomically."""
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    write_csv(path, [columns, *([_cell(row.get(name)) for name in columns] for row in rows)])


def _cell(value: Any) -> Any:
    """Return the text of one value."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.8g}" if isinstance(value, float) else value
