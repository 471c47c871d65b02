"""Imports point down only: each layer knows the layers below it and none above."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "crystens"

# From the bottom up; a module may import from lower layers and from its own.
LAYERS = [
    {
        "errors",
        "torchvision_schemas",
        "checkpoint",
        "clustering",
        "xla",
        "start_method",
        "cores",
        "openmp",
        "progress_bars",
        "command",
    },
    {"configs", "config_keys"},
    {"atomic_file", "cache_folder", "reasons", "distances", "formulas"},
    {"guarded_pool", "cost_estimate"},
    {"crystal"},
    {"batch", "atom_codes"},
    {"batch_distances"},
    {"symmetry", "encoding", "cif", "wyckoff", "orbits", "descriptions", "projection", "orbit_batch", "orbit_codes"},
    {"scaling", "orbit_scaling"},
    {"decoding", "orbit_decoding"},
    {"data", "networks", "metrics"},
    {"templates", "pictures", "viewer", "report", "accelerator"},
    {"generator"},
    {"models", "callbacks", "references", "judging", "evaluate", "export", "samples", "runs", "wandb_run", "dashboard"},
    {"candidates", "sun"},
    {"resume"},
    {"tasks"},
    {"command_line"},
    {"cli"},
]
# Doors of the class Crystal to what knows crystals: imported when they are called.
DOORS = {
    "crystens.cif.write.write_cif",
    "crystens.ingest.kinds.read_one",
    "crystens.symmetry.space_groups.space_group_number",
}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
CONFIGURED = {"hydra", "omegaconf"}
TRAINED = {"pytorch_lightning", "lightning"}


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def _layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(f"relative import in {path.name}")
    return found


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = LEVEL[_layer(path)]
    for name in _imports(path):
        assert not name.startswith("relative"), "imports are absolute"
        if own == LEVEL["crystal"] and name in DOORS:
            continue
        if name.startswith("crystens.") and name != "crystens.__version__":
            other = name.split(".")[1]
            assert LEVEL[other] <= own, f"{path.name} imports {name} from a higher layer"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_top_sees_hydra_and_only_models_data_and_callbacks_see_lightning(path: Path) -> None:
    roots = {name.split(".")[0] for name in _imports(path)}
    layer = _layer(path)
    if layer not in {"config_keys", "configs", "generator", "resume", "tasks", "command_line"}:
        assert not roots & CONFIGURED
    if layer not in {"tasks", "accelerator", "models", "callbacks", "wandb_run", "data"}:
        assert not roots & TRAINED


def test_one_module_imports_imagen_pytorch_and_lazily() -> None:
    users = [path for path in _modules() if any(name.split(".")[0] == "imagen_pytorch" for name in _imports(path))]
    assert [path.relative_to(PACKAGE).as_posix() for path in users] in ([], ["networks/imagen.py"])
    for path in users:
        top = {
            alias.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert not any(name.startswith("imagen_pytorch") for name in top)


def test_a_process_that_only_parses_does_not_import_torch() -> None:
    # It would start three times as slowly; every module with a source that reads files is such a one.
    modules = "workers cif_folder cdvae dictionary mp_3dsc xyz ase_db poscar pymatgen_json prototypes"
    imports = "; ".join(f"import crystens.data.{name}" for name in modules.split())
    code = f"import sys; {imports}; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.slow  # a fresh import of both; every other test imports them after crystens as well
def test_torchvision_can_be_imported_after_crystens_whoever_imports_it_first() -> None:
    code = "import crystens; import torchmetrics, torchvision; print(torchvision.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
