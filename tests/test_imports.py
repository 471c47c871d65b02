"""The cost of imports: a process that only parses files is small. Layers are the contracts in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_a_process_that_only_parses_does_not_import_torch() -> None:
    # It would start three times as slowly; every module with a source that reads files is such a one.
    modules = "ingest.workers datasets.cdvae datasets.mp_3dsc datasets.mp_52 datasets.prototypes formats.ase_db "
    modules += "formats.cif_folder formats.csv_table formats.crystal_dictionary formats.extxyz formats.poscar "
    modules += "formats.pymatgen_json"
    imports = "; ".join(f"import crystens.{name}" for name in modules.split())
    code = f"import sys; {imports}; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.slow  # a fresh import of both; every other test imports them after crystens as well
def test_torchvision_can_be_imported_after_crystens_whoever_imports_it_first() -> None:
    code = "import crystens; import torchmetrics, torchvision; print(torchvision.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
