"""Files of entries for a hull: energies of phases from density functional theory.

Total energies of two functionals differ by electronvolts per atom, so that a hull must not mix them. If entries state
their functional, a file with two functionals is an error, and so is one with another functional than that of `scale`.
The functional is `run_type`, in `parameters` or at the top level, or the end of `entry_id`, as in `mp-1-r2SCAN`. GGA
and GGA+U count as one functional, PBE with the corrections of the Materials Project. With the scale `MP2020`, energies
that its mixing scheme moved onto the hull of another functional are an error too.

Source of the mixing scheme: Kingsbury et al., "A flexible and scalable scheme for mixing computed formation energies
from different levels of theory", npj Comput. Mater. 2022, 8, 195.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition, Element

from crystens.energies.hull_entries import HullReference, ReferenceEntry
from crystens.energies.potentials import MP2020
from crystens.errors import CrystensError, first_line

GGA = "GGA(+U)"
_MIXTURE = "mixture"
_FUNCTIONALS = {"GGA": GGA, "PBE": GGA, "R2SCAN": "r2SCAN", "SCAN": "SCAN", "PBESOL": "PBEsol", "LDA": "LDA"}
_MOST_NAMED = 3  # entries named in an error


def read_hull_reference(path: str | Path, scale: str, name: str | None = None) -> HullReference:
    """Return the reference of a file of entries.

    Args:
        path: `.json` or `.json.gz`, a list of pymatgen's ComputedEntry or ComputedStructureEntry as dictionaries (from
            mp-api's MPRester, written by monty's dumpfn), whose corrected energy is used; or `.csv` or `.csv.gz` with
            the columns formula and energy_per_atom, eV/atom, and optionally entry_id and run_type.
        scale: scale of the energies, which the file does not state: `MP2020` for the Materials Project with its
            corrections of 2020, or the identity of a potential.
        name: name of the reference; None for the file's name.

    Raises:
        CrystensError: if the file is not of these formats, or its entries state several functionals, or another
            functional than that of the scale `MP2020`.
    """
    path = Path(path).expanduser()
    expected = "pymatgen entries (.json) or a table with formula and energy_per_atom (.csv)"
    plain = path.name.removesuffix(".gz")
    if not plain.endswith((".json", ".csv")):
        raise CrystensError(f"{path} is no file of entries; give {expected}")
    text = file_text(path, expected)
    entries = list(_json_entries(text, path, scale) if plain.endswith(".json") else _csv_entries(text, path, scale))
    return HullReference(entries, scale, name or path.name)


def file_text(path: Path, expected: str) -> str:
    """Return the text of a file, plain or gzipped.

    Args:
        path: the file.
        expected: description of the expected file, for the message.

    Raises:
        CrystensError: if it cannot be read.
    """
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.name.endswith(".gz") else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CrystensError(f"cannot read {path}: {first_line(error)}; give {expected}") from error


def check_functionals(items: Iterable[Mapping[str, Any]], scale: str, where: str) -> None:
    """Check that entries have one functional, that of the scale.

    Args:
        items: entries as dictionaries; an entry that states no functional passes.
        scale: scale of the energies, see `read_hull_reference`.
        where: origin of the entries, for the message.

    Raises:
        CrystensError: if there are several functionals, or with the scale `MP2020` a functional other than GGA(+U).
    """
    found: dict[str, list[str]] = defaultdict(list)
    for number, item in enumerate(items):
        if (functional := functional_of(item)) is not None:
            found[functional].append(str(item.get("entry_id") or f"entry {number}"))
    most = max(found, key=lambda name: len(found[name]), default=GGA)
    good = GGA if scale == MP2020 else most
    wrong = [functional for functional in found if functional != good or functional == _MIXTURE]
    if not wrong:
        return
    told = "; ".join(_told(functional, found[functional]) for functional in wrong)
    if scale == MP2020:
        raise CrystensError(
            f"{where}: {told}: no {MP2020} energies; leave them out, or ask the Materials Project for the thermo type "
            "GGA_GGA+U"
        )
    rest = f", beside {len(found[good])} of {good}" if good != _MIXTURE else ""
    raise CrystensError(f"{where}: {told}{rest}; a hull takes energies of one functional")


def _told(functional: str, names: Sequence[str]) -> str:
    """Return the number of entries with a functional, and the first few of them, in words."""
    kind = "mixed from several functionals" if functional == _MIXTURE else f"of run type {functional}"
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return f"{len(names)} entries ({', '.join(names[:_MOST_NAMED])}{more}) are {kind}"


def functional_of(item: Mapping[str, Any]) -> str | None:
    """Return the functional that an entry states, with GGA and GGA+U as one; None if it states none."""
    adjustments = item.get("energy_adjustments")
    for adjustment in adjustments if isinstance(adjustments, list) else ():
        if "mixing" in str(_field(adjustment, "name")).lower() and _value(adjustment) != 0:
            return _MIXTURE
    told = _field(item.get("parameters"), "run_type") or item.get("run_type")
    if told:
        return _functional(str(told)) or str(told)
    return _functional(str(item.get("entry_id") or "").rpartition("-")[2])


def corrected_energy(item: Mapping[str, Any]) -> float:
    """Return the energy of an entry with its corrections, eV: its adjustments where it has any, else `correction`.

    Raises:
        KeyError, TypeError, ValueError: if it has no energy, or an adjustment of a kind that is not known.
    """
    energy, correction = float(item["energy"]), float(item.get("correction") or 0.0)
    adjustments = item.get("energy_adjustments") or ()
    if not adjustments:
        return energy + correction
    total = math.fsum(_value(adjustment) for adjustment in adjustments)
    if item.get("correction") is not None and not math.isclose(total, correction, abs_tol=1e-4):
        raise ValueError(f"correction {correction:g} eV is not the sum of its energy_adjustments, {total:g} eV")
    return energy + total


def checked_entry(composition: Any, energy: float, label: str) -> ReferenceEntry:
    """Return an entry, after a check of its values.

    Raises:
        ValueError: if the composition or the energy is not valid.
    """
    plain = Composition(composition).element_composition
    if not plain.num_atoms > 0 or not np.isfinite(energy):
        raise ValueError(f"composition {plain.formula!r} with energy {energy}")
    if any(not Element.is_valid_symbol(element.symbol) for element in plain):
        raise ValueError(f"composition {plain.formula!r} contains a symbol that is no element")
    return ReferenceEntry(plain, energy, label)


def _value(adjustment: Mapping[str, Any]) -> float:
    """Return the energy of an adjustment, eV; its fields are those of pymatgen's classes."""
    for names in (("value",), ("adj_per_atom", "n_atoms"), ("adj_per_deg", "temp", "n_atoms")):
        if all(name in adjustment for name in names):
            return math.prod(float(adjustment[name]) for name in names)
    raise ValueError(f"energy adjustment without value or adj_per_atom and n_atoms: {sorted(adjustment)}")


def _functional(text: str) -> str | None:
    """Return the functional of a run type or thermo type, such as `GGA_GGA+U`; None if it is not known."""
    parts = set(re.sub(r"\(?\+U\)?|_U$", "", text.upper()).split("_"))
    kinds = {_FUNCTIONALS.get(part) for part in parts}
    return None if None in kinds else next(iter(kinds)) if len(kinds) == 1 else _MIXTURE


def _field(item: Any, name: str) -> Any:
    """Return a field of a dictionary; None for anything but a dictionary."""
    return item.get(name) if isinstance(item, Mapping) else None


def _json_entries(text: str, path: Path, scale: str) -> Iterator[ReferenceEntry]:
    """Yield the entries of a JSON file."""
    try:
        items = json.loads(text)
    except ValueError as error:
        raise CrystensError(f"{path} is not JSON: {error}; write it with monty's dumpfn") from error
    if not isinstance(items, list):
        raise CrystensError(f"{path} holds a {type(items).__name__}; give a list of entries")
    for number, item in enumerate(items):
        try:
            composition = item["composition"] if "composition" in item else _sites(item["structure"])
            entry = checked_entry(composition, corrected_energy(item), str(item.get("entry_id") or ""))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CrystensError(
                f"{path}, entry {number}: {error!r}; an entry needs composition and energy, as ComputedEntry has them"
            ) from error
        yield entry
    check_functionals(items, scale, str(path))


def _csv_entries(text: str, path: Path, scale: str) -> Iterator[ReferenceEntry]:
    """Yield the entries of a table."""
    table = csv.DictReader(text.splitlines())
    lacking = {"formula", "energy_per_atom"} - set(table.fieldnames or ())
    if lacking:
        raise CrystensError(f"{path} has no column {' and no '.join(sorted(lacking))}; name them on its first line")
    rows = []
    for row in table:
        try:
            composition = Composition(row["formula"])
            entry = checked_entry(composition, float(row["energy_per_atom"]) * composition.num_atoms, row["formula"])
        except (TypeError, ValueError) as error:
            raise CrystensError(f"{path}, line {table.line_num}: {first_line(error)}; correct or delete it") from error
        rows.append(row)
        yield entry
    check_functionals(rows, scale, str(path))


def _sites(structure: dict[str, Any]) -> dict[str, float]:
    """Return the composition of a structure's dictionary."""
    amounts: dict[str, float] = defaultdict(float)
    for site in structure["sites"]:
        for species in site["species"]:
            amounts[species["element"]] += species["occu"]
    return amounts
