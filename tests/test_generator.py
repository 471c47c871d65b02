"""The door from Python: load, sample, encode, decode, judge; and what a checkpoint brings."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from hydra import compose, initialize_config_dir
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

import crystens
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.generator import Generator
from crystens.samples.folder import read_samples, sample_to_file
from crystens.training import tasks

REPOSITORY = Path(__file__).parent.parent

# Formulas of the first samples of seed 0, as the full checkpoint of the training run gave them.
FORMULAS = ["GeRhN2O", "BiMoO3", "YBiO3", "FeRhNOF", "CoOsNOF", "GaGeO2F", "LaTiSO2", "SnGeN3", "ZnGeN2O", "FeBO2F"]


@pytest.fixture(scope="module")
def perov_5() -> Generator:
    torch.set_num_threads(1)
    return crystens.load("perov_5", device="cpu")


@pytest.fixture(scope="module")
def samples(perov_5: Generator) -> list[Structure | None]:
    return perov_5.sample(10, seed=0)


def test_released_weights_sample_the_crystals_of_the_run_that_they_come_from(samples: list[Structure]) -> None:
    assert [structure.composition.reduced_formula for structure in samples] == FORMULAS
    assert samples[0].lattice.a == pytest.approx(3.86597, abs=1e-3)


def test_released_weights_hold_no_module_that_only_training_needs(perov_5: Generator) -> None:
    checkpoint = crystens.checkpoint.load_checkpoint("perov_5")
    assert not any(name.startswith("network.") for name in checkpoint["state_dict"])
    assert set(checkpoint) == {"epoch", "global_step", "state_dict", "crystens"}


def test_a_release_has_no_paths_and_half_of_the_bits(perov_5: Generator) -> None:
    checkpoint = crystens.checkpoint.load_checkpoint("perov_5")
    told = checkpoint["crystens"]
    told["config"] = {**told["config"], "run_folder": "/home/somebody/run"}
    told["reference"] = {**told["reference"], "name": "perov_5 of /home/somebody/perov_5"}
    made = crystens.checkpoint.release(checkpoint, perov_5.model, half=True)
    assert made["crystens"]["config"]["run_folder"] == "run"
    assert made["crystens"]["reference"]["name"] == "perov_5 of perov_5"  # `Reference` shortens it
    assert told["reference"]["name"] == "perov_5 of /home/somebody/perov_5"
    kinds = {name: tensor.dtype for name, tensor in made["state_dict"].items()}
    assert kinds["average_network.transformer.in_proj.weight"] == torch.float16
    assert kinds["site_counts"] == torch.int64
    again = Generator.from_checkpoint(made)
    assert again.reference.name == "perov_5"
    assert "perov_5 of" not in repr(again)
    whole, rounded = perov_5.sample_images(4, seed=0), again.sample_images(4, seed=0)
    assert 0 < (whole - rounded).abs().max() < 0.1


def test_released_weights_know_templates_and_held_out_crystals(perov_5: Generator, tmp_path: Path) -> None:
    reference = perov_5.reference
    assert reference.has_template("221 abc of 3 elements")
    assert reference.held_out_name == "test, 1000 crystals"
    assert reference.held_out is not None
    assert reference.held_out["known_template_rate"] == 1
    # They are of the release alone, whose file of weights is from before.
    copied = shutil.copy(crystens.checkpoint.checkpoint_path("perov_5"), tmp_path / "perov_5.ckpt")
    assert "held_out" not in crystens.checkpoint.load_checkpoint(copied)["crystens"]["reference"]


def test_the_three_forms_of_samples_are_the_same_crystals(perov_5: Generator, samples: list[Structure]) -> None:
    decoded = perov_5.sample(3, seed=0, as_="decoded")
    atoms = perov_5.sample(3, seed=0, as_="ase")
    for structure, item, row in zip(samples, decoded, atoms, strict=False):
        assert item.crystal is not None
        assert item.reason == ""
        assert isinstance(row, Atoms)
        assert row.get_chemical_symbols() == [site.specie.symbol for site in structure]
        assert np.allclose(row.get_scaled_positions(), item.crystal.coordinates)
        assert item.crystal.to_structure() == structure


def test_images_are_those_that_sample_py_writes(perov_5: Generator, tmp_path: Path) -> None:
    written = sample_to_file(perov_5, tmp_path, 5, 64, 3)
    assert written is not None
    assert torch.equal(written.images, perov_5.sample_images(5, seed=3))
    assert not torch.equal(written.images, perov_5.sample_images(5, seed=4))


def test_encode_inverts_decode_for_structures_atoms_and_crystals(perov_5: Generator, samples: list[Structure]) -> None:
    structure = samples[1]
    crystal = Crystal.from_structure(structure)
    images = perov_5.encode([structure, crystal, crystal.to_atoms()])
    assert images.shape == (3, 4, 17, 17)
    assert torch.allclose(images[0], images[1])
    assert torch.allclose(images[0], images[2])
    assert torch.equal(perov_5.encode(structure), images[:1])
    for item in perov_5.decode(images):
        assert StructureMatcher().fit(item.crystal.to_structure(), structure)
    assert perov_5.decode(images[0])[0].crystal.formula == "BiMoO3"


def test_what_cannot_be_an_image_is_refused_by_its_place(perov_5: Generator, nacl: Crystal) -> None:
    with pytest.raises(CrystensError, match="crystal 1: more than 5 atoms in the cell: 8"):
        perov_5.encode([Structure(nacl.lattice, ["Cu"], [[0, 0, 0]]), nacl])
    with pytest.raises(CrystensError, match="crystal 0: a crystal is a pymatgen Structure, ASE Atoms or a Crystal"):
        perov_5.encode(["NaCl"])  # type: ignore[list-item]
    with pytest.raises(CrystensError, match=r"images must be of shape \(n, 4, 17, 17\), got \(2, 4, 32, 32\)"):
        perov_5.decode(torch.zeros(2, 4, 32, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "num_samples=0"),
        ({"n": 1, "seed": -1}, "seed=-1 must be at least 0"),
        ({"n": 2.5}, "num_samples=2.5 must be a whole number"),
        ({"n": 1, "seed": None}, "seed=None must be a whole number"),
        ({"n": 1, "as_": "cif"}, "as_='cif' is not known; use one of pymatgen, ase, decoded"),
    ],
)
def test_arguments_out_of_range_are_refused(perov_5: Generator, arguments: dict, message: str) -> None:
    with pytest.raises(CrystensError, match=message):
        perov_5.sample(**arguments)


def test_a_numpy_integer_is_a_number_and_a_seed(perov_5: Generator) -> None:
    assert torch.equal(perov_5.sample_images(np.int64(2), seed=np.uint8(3)), perov_5.sample_images(2, seed=3))


def test_wrong_types_are_refused_with_what_is_taken(perov_5: Generator, nacl: Crystal) -> None:
    with pytest.raises(CrystensError, match="checkpoint=None must be a path, or the name of a released model"):
        crystens.load(None)  # type: ignore[arg-type]
    with pytest.raises(CrystensError, match="decode='auto' must map keys of the decoder to values"):
        crystens.load("perov_5", decode="auto")  # type: ignore[arg-type]
    with pytest.raises(CrystensError, match=r"crystal 0: .* got DecodedCrystal"):
        perov_5.encode(perov_5.decode(torch.zeros(4, 17, 17))[0])  # type: ignore[arg-type]
    with pytest.raises(CrystensError, match="images must be one tensor or one array, got list"):
        perov_5.decode([torch.zeros(4, 17, 17), torch.zeros(4, 17, 17)])  # type: ignore[arg-type]
    with pytest.raises(CrystensError, match="reference=3 must be a generator, the name of a data set"):
        crystens.judge([nacl], reference=3)  # type: ignore[arg-type]


def test_a_path_is_a_reference(nacl: Crystal, tmp_path: Path) -> None:
    (tmp_path / "nacl.cif").write_text(nacl.to_cif())
    assert crystens.judge([nacl], reference=tmp_path)["novel_formula_rate"]["value"] == 0.0


def test_an_empty_image_is_none_and_its_reason_is_kept(perov_5: Generator) -> None:
    (item,) = perov_5.decode(torch.zeros(1, 4, 17, 17))
    assert item.crystal is None
    assert item.reason == "the image holds no site"


def test_judged_samples_keep_failures_in_the_denominator(perov_5: Generator, samples: list[Structure]) -> None:
    (failed,) = perov_5.decode(torch.zeros(1, 4, 17, 17))
    metrics = crystens.judge([*samples, None, failed], reference=perov_5)
    assert metrics["num_samples"]["value"] == 12
    assert metrics["decoded_rate"]["value"] == pytest.approx(10 / 12)
    assert metrics["failures"]["reasons"] == {"no crystal": 1, "the image holds no site": 1}
    assert metrics["ks_a"]["reference_count"] == 11356
    assert 0 < metrics["ks_a"]["value"] < 0.5


def test_judging_in_memory_gives_the_numbers_of_the_files(
    perov_5: Generator, samples: list[Structure], tmp_path: Path
) -> None:
    from crystens.evaluate import evaluate
    from crystens.formats.cif_folder import CifFolder

    for place, structure in enumerate(samples):
        structure.to(filename=str(tmp_path / f"{place}.cif"))
    of_files = evaluate(CifFolder(tmp_path), tmp_path / "out", perov_5.reference)
    in_memory = crystens.judge(samples, reference=perov_5)
    names = [name for name, entry in of_files.items() if isinstance(entry["value"], float)]
    assert "ks_Z" in names
    assert {name: in_memory[name]["value"] for name in names} == {name: of_files[name]["value"] for name in names}


def test_a_data_set_is_a_reference_by_its_name(nacl: Crystal, single_atom: Crystal, tmp_path: Path) -> None:
    for split, crystal in (("train", nacl), ("val", single_atom), ("test", single_atom)):
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["material_id", "cif"], ["1", crystal.to_cif()]])
    metrics = crystens.judge([nacl, single_atom], reference="perov_5", data_path=str(tmp_path))
    assert metrics["novel_formula_rate"]["value"] == 0.5  # the train split holds NaCl alone
    assert metrics["ks_a"]["reference_count"] == 1
    with pytest.raises(CrystensError, match="need a reference that is the name of a data set"):
        crystens.judge([nacl], data_path="somewhere")


def test_overrides_of_the_decoder_apply_on_top_of_the_checkpoint(tmp_path: Path) -> None:
    assert crystens.load("perov_5", "cpu").decoder.atom_clusters == "auto"
    changed = crystens.load("perov_5", "cpu", decode={"atom_clusters": 2, "symmetrise": False}).decoder
    assert (changed.atom_clusters, changed.symmetrise, changed.merge_distance) == (2, False, 0.5)
    with pytest.raises(CrystensError, match=r"decode.atom_clusters must be a positive whole number or auto, got 0"):
        crystens.load("perov_5", "cpu", decode={"atom_clusters": 0})


def _sample(folder: Path, *lines: str) -> dict:
    """Run the task of sample.py and return its decoder as metrics.json states it."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        tasks.sample(compose("sample", overrides=[f"run_folder={folder}", "threads=1", *lines]))
    return json.loads((folder / "metrics.json").read_text())["provenance"]["value"]["decode"]


def test_images_carry_the_decoder_of_their_checkpoint_whatever_they_were_decoded_with(tmp_path: Path) -> None:
    first = _sample(tmp_path / "one", "checkpoint=perov_5", "device=cpu", "num_samples=3", "decode.atom_clusters=3")
    assert (first["atom_clusters"], first["symmetrise"]) == (3, True)
    images = tmp_path / "one" / "images.safetensors"
    assert read_samples(images).decode["atom_clusters"] == "auto"
    assert _sample(tmp_path / "two", f"images={images}")["atom_clusters"] == "auto"
    assert _sample(tmp_path / "three", f"images={images}", "decode.coordinate_clusters=4")["coordinate_clusters"] == 4
    paper = _sample(tmp_path / "four", f"images={images}", "decode=paper")
    assert (paper["atom_clusters"], paper["coordinate_clusters"], paper["symmetrise"]) == (3, 6, False)
    for line in ("num_samples=10", "chunk_size=32", "seed=1", "device=cuda", "+model.sampling_steps=9"):
        name = line.lstrip("+").split("=")[0].split(".")[0]
        with pytest.raises(CrystensError, match=f"^{name}=.* is for sampling, and images=.* are only decoded"):
            _sample(tmp_path / "five", f"images={images}", line)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("perov5", "no checkpoint at perov5; .* released models are mp_52, perov_5"),
        (".", r"\. is a folder without checkpoints/last.ckpt: give a run folder"),
    ],
)
def test_an_unknown_checkpoint_is_answered_with_the_released_names(
    checkpoint: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CrystensError, match=message):
        crystens.load(checkpoint)


def test_importing_crystens_and_a_crystal_imports_no_torch() -> None:
    code = "import sys, crystens; crystens.Crystal; dir(crystens); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
    with pytest.raises(AttributeError, match=r"module 'crystens' has no attribute 'laod'; it has .*load"):
        crystens.laod  # noqa: B018
