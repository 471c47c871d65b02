"""Files that hold structures: written as others write them, and read through two processes."""

from __future__ import annotations

import gzip
import io
import json
import pickle
from pathlib import Path

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from pymatgen.core import Lattice, Structure

from crystens.crystal import Crystal
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject
from crystens.sources.source import Source

CRYSTALS = ["nacl", "copper_primitive", "triclinic", "sites_52"]


def items_of(source: Source, **limits) -> tuple[list[Entry], list[Reject]]:
    """Return the entries and rejects of a source; every record makes its way to another process."""
    bounds = Limits(**limits)
    items: list[Entry | Reject] = []
    for record in source.records():
        if isinstance(record, Reject):
            items.append(record)
        else:
            items += pickle.loads(pickle.dumps(source)).parsed(pickle.loads(pickle.dumps(record)), bounds)
    return [i for i in items if isinstance(i, Entry)], [i for i in items if isinstance(i, Reject)]


def categories_of(source: Source, **limits) -> list[str]:
    """Return the categories of the rejects of a source that has nothing else."""
    entries, rejects = items_of(source, **limits)
    assert entries == []
    assert all(reject.advice for reject in rejects)
    return [reject.category for reject in rejects]


def assert_same(read: Crystal, written: Crystal) -> None:
    """Check formula, cell, sites and space group."""
    assert read.formula == written.formula
    assert read.space_group == written.space_group
    np.testing.assert_allclose(read.lengths, written.lengths, atol=1e-6)
    np.testing.assert_allclose(read.angles, written.angles, atol=1e-6)
    assert_same_sites(read, written.numbers, written.coordinates)


def assert_same_sites(read: Crystal, numbers: np.ndarray, coordinates: np.ndarray) -> None:
    """Check that each site has its own one among those expected, in any order, up to 1e-6 of the cell."""
    assert len(read) == len(numbers)
    steps = read.coordinates[:, None] - coordinates[None]
    same = (np.abs(steps - np.round(steps)).max(axis=2) < 1e-6) & (read.numbers[:, None] == np.asarray(numbers)[None])
    assert (same.sum(axis=0) == 1).all()
    assert (same.sum(axis=1) == 1).all()


def as_atoms(crystal: Crystal) -> Atoms:
    """Return a crystal as ASE has it."""
    matrix = crystal.lattice.matrix
    return Atoms(crystal.numbers, cell=matrix, scaled_positions=crystal.coordinates, pbc=True)


def write_database(path: Path, rows: list[tuple[Atoms, dict]]) -> Path:
    """Write a database of ASE."""
    with ase.db.connect(str(path), use_lock_file=False) as database:
        for atoms, pairs in rows:
            database.write(atoms, **pairs)
    return path


def xyz_frame(crystal: Crystal, **info) -> str:
    """Return a frame as ASE writes it."""
    atoms = as_atoms(crystal)
    atoms.info.update(info)
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    return text.getvalue()


def write_json(path: Path, value: object) -> Path:
    text = json.dumps(value).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def salt_json() -> dict:
    """Return a Structure of NaCl as pymatgen writes it."""
    return Structure(Lattice.cubic(3.4), ["Na+", "Cl-"], [[0, 0, 0], [0.5] * 3]).as_dict()
