"""Structures as objects of JSON, in the forms of three projects, and as texts, which hold such an object or a CIF.

    pymatgen   {"lattice": {"matrix": [[..], [..], [..]]}, "sites": [{"species": [{"element": "Na", "occu": 1}],
               "abc": [..]}, ..]}
    JARVIS     {"lattice_mat": [[..], [..], [..]], "coords": [[..], ..], "elements": ["Na", ..], "cartesian": false}
    OPTIMADE   {"lattice_vectors": [[..], [..], [..]], "cartesian_site_positions": [[..], ..],
               "species_at_sites": ["Na", ..], "species": [{"name": "Na", "chemical_symbols": ["Na"],
               "concentration": [1]}, ..]}, as LeMat-Bulk's rows are

Cell vectors are rows, angstrom. Only numbers and symbols are read; no class that an object names (`@module`, `@class`)
is looked up or imported. Oxidation states and isotopes are dropped, and occupancies of the same element on one site
are added.

Source: `Structure.as_dict` of pymatgen, `jarvis.core.atoms.Atoms.to_dict`, and the OPTIMADE specification 1.2, entry
type structures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from crystens.cif.read import read_cif
from crystens.crystal import Crystal
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject, Unusable, quoted, shown
from crystens.sources.structures import atomic_number, check_periodic, crystal_of_sites, finite_array

ADVICE = "give pymatgen structures, as Structure.as_dict writes them"
_MOST_SHARE = 1e6  # larger occupancies count as no number; `Limits` reports others above 1
KEYS = (  # keys of all forms
    *(
        "lattice",
        "sites",
        "lattice_mat",
        "coords",
        "elements",
        "cartesian",
        "lattice_vectors",
        "cartesian_site_positions",
    ),
    *("cartesian_site_positions", "species_at_sites", "species", "dimension_types", "structure_features"),
)
_JARVIS = ("lattice_mat", "coords", "elements")
_OPTIMADE = ("lattice_vectors", "cartesian_site_positions", "species_at_sites")
_ALL_ATOMS = "give the crystal with a site for each atom"
_IMPLICIT = {  # structure_features of OPTIMADE whose atoms are not all sites
    "implicit_atoms": "atoms that have no site",
    "site_attachments": "atoms that are attached to sites and have no place",
    "assemblies": "alternative sites (disordered structure)",
}


def is_structure(value: Any) -> bool:
    """Return whether an object is a structure of a known form. A crystal dictionary, whose sites are lists, is not."""
    if not isinstance(value, Mapping):
        return False
    sites = value.get("sites")
    if isinstance(value.get("lattice"), Mapping) and isinstance(sites, list):
        return all(isinstance(site, Mapping) for site in sites)
    return all(key in value for key in _JARVIS) or all(key in value for key in _OPTIMADE)


def is_text(value: Any) -> bool:
    """Return whether a value is a text that may hold a structure: an object of JSON, or a CIF."""
    return isinstance(value, str) and (value.lstrip().startswith("{") or ("data_" in value and "_cell" in value))


def read_structure(value: Any, file: str, name: str, limits: Limits) -> list[Entry | Reject]:
    """Return the crystals of an object or a text (`is_text`), or the reason why there is none.

    Args:
        value: any value of JSON.
        file: name of the file, see `Record`.
        name: name of the structure in the file.
        limits: conditions for a crystal to be used.
    """
    if is_text(value):
        return read_text(value, file, name, limits)
    try:
        return [Entry(file, name, crystal_of(value, limits))]
    except Unusable as error:
        return [Reject(file, name, error.reason, error.advice)]


def read_text(text: str, file: str, name: str, limits: Limits) -> list[Entry | Reject]:
    """Return the crystals of a text, see `read_structure`: an object of JSON if it begins as one, else a CIF."""
    if not text.lstrip().startswith("{"):
        items = read_cif(text, file, limits)
        return [replace(item, entry=name if len(items) == 1 else f"{name}/{item.entry}") for item in items]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return [Reject(file, name, f"not JSON: {error}"[:200], "write the structure with json.dumps")]
    held = not is_structure(value) and isinstance(value.get("structure"), Mapping)
    return read_structure(value["structure"] if held else value, file, name, limits)


def crystal_of(value: Any, limits: Limits) -> Crystal:
    """Return the crystal of the object of a structure.

    Raises:
        Unusable: if the object holds no usable crystal.
    """
    if not isinstance(value, Mapping):
        found = "a text" if isinstance(value, str) else type(value).__name__
        raise Unusable(f"no structure: {found} stands where an object should", ADVICE)
    if not is_structure(value):
        keys = ", ".join(shown(str(key), 20) for key in list(value)[:6]) or "none"
        raise Unusable(f"no structure: lattice or sites are missing among the keys {keys}", ADVICE)
    if "sites" in value:
        return _pymatgen(value, limits)
    return _jarvis(value, limits) if "lattice_mat" in value else _optimade(value, limits)


def _pymatgen(structure: Mapping[str, Any], limits: Limits) -> Crystal:
    """Return the crystal of a Structure of pymatgen."""
    lattice = structure["lattice"]
    if isinstance(lattice.get("pbc"), list):
        check_periodic(lattice["pbc"])
    matrix = finite_array(lattice.get("matrix"), (3, 3), "cell vectors")
    shares = [_shares(site.get("species")) for site in structure["sites"]]
    return _crystal(limits, matrix, shares, [site.get("abc") for site in structure["sites"]], cartesian=False)


def _jarvis(atoms: Mapping[str, Any], limits: Limits) -> Crystal:
    """Return the crystal of Atoms of JARVIS."""
    cartesian = atoms.get("cartesian", False)
    if not isinstance(cartesian, bool):
        raise Unusable(f"cartesian not understood: {quoted(cartesian)}", "write true or false")
    matrix = finite_array(atoms["lattice_mat"], (3, 3), "cell vectors")
    elements, places = _same_length(atoms["elements"], atoms["coords"], "elements", "coords")
    return _crystal(limits, matrix, [{atomic_number(element): 1.0} for element in elements], places, cartesian)


def _optimade(entry: Mapping[str, Any], limits: Limits) -> Crystal:
    """Return the crystal of the attributes of an entry of OPTIMADE."""
    if isinstance(dimensions := entry.get("dimension_types"), list):
        check_periodic([dimension == 1 for dimension in dimensions])
    features = entry.get("structure_features")
    for feature in features if isinstance(features, list) else []:
        if isinstance(feature, str) and feature in _IMPLICIT:
            raise Unusable(f"atoms without sites: {feature}, {_IMPLICIT[feature]}", _ALL_ATOMS)
    matrix = finite_array(entry["lattice_vectors"], (3, 3), "cell vectors")
    names, places = _same_length(
        entry["species_at_sites"], entry["cartesian_site_positions"], "species_at_sites", "cartesian_site_positions"
    )
    species = _species(entry.get("species"))
    # Without a list of species, names are symbols.
    shares = [species[n] if isinstance(n, str) and n in species else {atomic_number(n): 1.0} for n in names]
    return _crystal(limits, matrix, shares, places, cartesian=True)


def _species(listed: Any) -> dict[str, dict[int, float]]:
    """Return the occupancies of the elements in each species of OPTIMADE, by name; a text is JSON, as in LeMat-Bulk."""
    if isinstance(listed, str):
        try:
            listed = json.loads(listed)
        except (ValueError, RecursionError):
            return {}
    found: dict[str, dict[int, float]] = {}
    for item in listed if isinstance(listed, list) else []:
        name, symbols = (item.get("name"), item.get("chemical_symbols")) if isinstance(item, Mapping) else (None, None)
        if not isinstance(name, str) or not isinstance(symbols, list):
            raise Unusable(f"species not understood: {quoted(item)}", "write the species as OPTIMADE says")
        if item.get("attached"):
            raise Unusable(f"atoms without sites: the species {shown(name)} has some attached", _ALL_ATOMS)
        shares = item.get("concentration") or [1.0] * len(symbols)
        symbols, shares = _same_length(symbols, shares, "chemical_symbols", "concentration")
        parts = [{"element": symbol, "occu": share} for symbol, share in zip(symbols, shares, strict=True)]
        there = [part for part in parts if part["element"] != "vacancy"]
        found[name] = _shares(there) if there else {}
    return found


def _crystal(
    limits: Limits, matrix: np.ndarray, shares: list[dict[int, float]], places: list[Any], cartesian: bool
) -> Crystal:
    """Return the crystal of sites, each with the occupancies of its elements and its coordinates."""
    rows = [
        (number, share, place) for site, place in zip(shares, places, strict=True) for number, share in site.items()
    ]
    numbers = np.array([number for number, _, _ in rows], dtype=np.int64)
    return crystal_of_sites(
        limits,
        matrix,
        numbers,
        finite_array([place for *_, place in rows], (len(rows), 3), "coordinates") if rows else np.zeros((0, 3)),
        finite_array([share for _, share, _ in rows], (len(rows),), "occupancies"),
        cartesian,
    )


def _shares(species: Any) -> dict[int, float]:
    """Return the occupancies of one site by atomic number, added over oxidation states and isotopes."""
    if not (isinstance(species, list) and species and all(isinstance(item, Mapping) for item in species)):
        raise Unusable(f"species not understood: {quoted(species)}", ADVICE)
    shares: dict[int, float] = {}
    for item in species:
        number = atomic_number(item.get("element"))
        occupancy = item.get("occu", 1)
        # An integer may be too large for a float.
        if not isinstance(occupancy, int | float) or isinstance(occupancy, bool) or not abs(occupancy) <= _MOST_SHARE:
            raise Unusable(f"occupancy not a number: {quoted(occupancy)}", ADVICE)
        shares[number] = shares.get(number, 0.0) + occupancy
    # Shares of 1/3 need not add up to 1 in floating point.
    return {number: 1.0 if abs(share - 1) < 1e-8 else share for number, share in shares.items()}


def _same_length(first: Any, second: Any, name: str, other: str) -> tuple[list[Any], list[Any]]:
    """Return two lists, which must have the same length."""
    if not isinstance(first, list) or not isinstance(second, list) or len(first) != len(second):
        counts = [len(value) if isinstance(value, list) else "no list" for value in (first, second)]
        raise Unusable(f"{name} and {other} do not fit each other: {counts[0]} and {counts[1]}", f"correct the {name}")
    return first, second
