"""The files of shared/data/cases in formats other than CIF, each of a kind that public bug reports tell of."""

from __future__ import annotations

from pathlib import Path

import pytest
from structure_sources import items_of

from crystens.ingest.kinds import open_source

CASES = {
    # file: name, formula and space group of each crystal
    "12-json-records/wbm.json": [("wbm-1-1", "CsCl", 221), ("wbm-1-2", "CsBr", 221)],
    "14-extxyz-specification/control_nan_forces.extxyz": [("frame 1", "CsCl", 221)],
    "14-extxyz-specification/double_colon.extxyz": [("frame 1", "CsCl", 221)],
    "14-extxyz-specification/lattice_2d.extxyz": [("frame 1", "CsCl", 221)],
    "22-peers-pt-files/numpy.pt": [("0", "CsCl", 221), ("1", "CsCl", 221)],
}


@pytest.mark.parametrize("file", CASES)
def test_case_is_read_as_its_expectation_says(file: str, shared_data: Path) -> None:
    path = shared_data / "cases" / file
    if not path.exists():
        pytest.skip("the shared data have no cases")
    entries, rejects = items_of(open_source(str(path)))
    assert rejects == []
    assert [(entry.entry, entry.crystal.formula, entry.crystal.space_group) for entry in entries] == CASES[file]
